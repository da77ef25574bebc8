"""Small model folders as Hugging Face has them, with random weights and real vocabularies: the same bytes
every time, so that what llama.cpp makes of them can be kept as a few hashes (tests/data/quantize)."""
import hashlib
import json
import shutil
import struct

import gguf
import numpy

SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
MISTRAL = "mistral-tokenizer.model.v3"


def floats(seed, shape):
    """Sums of four uniform numbers, some rows of zeros, a few weights that stand out."""
    n = int(numpy.prod(shape))
    raw = numpy.random.PCG64(seed).random_raw(n)
    parts = [(raw >> numpy.uint64(16 * i)) & numpy.uint64(0xffff) for i in range(4)]
    values = (sum(part.astype(numpy.float64) for part in parts) - 131070) / 1048576
    values[raw % numpy.uint64(331) == 0] *= 16
    values = values.astype(numpy.float32).reshape(shape)
    if len(shape) == 2:
        values[3 % shape[0]] = 0
        values[5 % shape[0]] = numpy.abs(values[5 % shape[0]])
    else:
        values = 1 + values
    return values


def to_bf16(values):
    bits = values.view(numpy.uint32).astype(numpy.uint64)
    return ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16).astype(numpy.uint16)


DTYPES = {
    "BF16": to_bf16,
    "F16": lambda values: values.astype(numpy.float16),
    "F32": lambda values: values,
}


def write_safetensors(path, tensors):
    """`tensors` is name: (dtype, values)."""
    header, blobs, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name, (dtype, values) in tensors.items():
        blob = DTYPES[dtype](values).tobytes()
        header[name] = {"dtype": dtype, "shape": list(values.shape),
                        "data_offsets": [offset, offset + len(blob)]}
        offset += len(blob)
        blobs.append(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def weights(config, dtype):
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    head_dim = config.get("head_dim") or hidden // config["num_attention_heads"]
    q, kv = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        shapes |= {
            prefix + "input_layernorm.weight": (hidden,),
            prefix + "self_attn.q_proj.weight": (q, hidden),
            prefix + "self_attn.k_proj.weight": (kv, hidden),
            prefix + "self_attn.v_proj.weight": (kv, hidden),
            prefix + "self_attn.o_proj.weight": (hidden, q),
            prefix + "post_attention_layernorm.weight": (hidden,),
            prefix + "mlp.gate_proj.weight": (ffn, hidden),
            prefix + "mlp.up_proj.weight": (ffn, hidden),
            prefix + "mlp.down_proj.weight": (hidden, ffn),
        }
    shapes["model.norm.weight"] = (hidden,)
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    return {name: (dtype, floats(seed, shape)) for seed, (name, shape) in enumerate(shapes.items())}


def write_shards(folder, tensors, n_shards):
    """As many files of consecutive tensors, and the index of them."""
    if n_shards == 1:
        write_safetensors(folder / "model.safetensors", tensors)
        return
    names, weight_map = list(tensors), {}
    for shard in range(n_shards):
        file = f"model-{shard + 1:05}-of-{n_shards:05}.safetensors"
        part = names[shard * len(names) // n_shards:(shard + 1) * len(names) // n_shards]
        write_safetensors(folder / file, {name: tensors[name] for name in part})
        weight_map |= {name: file for name in part}
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def dump(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False))


def smollm_tokenizer(folder, fixtures):
    """What SmolLM2's own folder has, from its GGUF file."""
    fields = gguf.GGUFReader(fixtures / SMOLLM2).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    added = [
        {"id": id, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for id, (token, kind) in enumerate(zip(tokens, kinds)) if kind == gguf.TokenType.CONTROL]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    dump(folder / "tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True}, byte_level]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                  "ignore_merges": False,
                  "vocab": {token: id for id, token in enumerate(tokens)},
                  "merges": fields["tokenizer.ggml.merges"].contents()}})
    dump(folder / "tokenizer_config.json", {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"} for token in added},
        "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>", "clean_up_tokenization_spaces": False,
        "model_max_length": 8192, "tokenizer_class": "GPT2Tokenizer", "vocab_size": 49152,
        "chat_template": fields["tokenizer.chat_template"].contents()})


def mistral_tokenizer(folder, fixtures):
    shutil.copyfile(fixtures / MISTRAL, folder / "tokenizer.model")
    special = {"<unk>": 0, "<s>": 1, "</s>": 2, "[INST]": 3, "[/INST]": 4}
    dump(folder / "tokenizer_config.json", {
        "add_bos_token": True, "add_eos_token": False, "add_prefix_space": True,
        "added_tokens_decoder": {
            str(id): {"content": text, "lstrip": False, "normalized": False, "rstrip": False,
                      "single_word": False, "special": True} for text, id in special.items()},
        "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "legacy": False,
        "tokenizer_class": "LlamaTokenizer"})
    (folder / "chat_template.jinja").write_text(
        "{{ bos_token }}{% for message in messages %}[INST] {{ message['content'] }}[/INST]{% endfor %}")


def deep(folder, fixtures):
    """Many layers, tied, rows of whole super-blocks, scaled positions, in three files."""
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256,
        "intermediate_size": 512, "num_hidden_layers": 18, "num_attention_heads": 4,
        "num_key_value_heads": 1, "max_position_embeddings": 131072, "rms_norm_eps": 1e-05,
        "rope_theta": 500000.0, "tie_word_embeddings": True, "vocab_size": 49152,
        "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16", "hidden_act": "silu",
        "rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}}
    dump(folder / "config.json", config)
    dump(folder / "generation_config.json", {"temperature": 0.6, "top_p": 0.9, "top_k": 50})
    smollm_tokenizer(folder, fixtures)
    write_shards(folder, weights(config, "BF16"), 3)


def narrow(folder, fixtures):
    """Rows that are no whole super-blocks, untied, an output of its own, in one file of F16."""
    config = {
        "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_size": 288,
        "intermediate_size": 768, "num_hidden_layers": 5, "num_attention_heads": 9,
        "num_key_value_heads": 3, "head_dim": 32, "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "sliding_window": None,
        "tie_word_embeddings": False, "vocab_size": 32768, "bos_token_id": 1, "eos_token_id": 2,
        "torch_dtype": "float16", "hidden_act": "silu"}
    dump(folder / "config.json", config)
    mistral_tokenizer(folder, fixtures)
    write_shards(folder, weights(config, "F16"), 1)


FOLDERS = {"Deep-20M-Instruct": deep, "narrow_mistral": narrow}


def importance(name, n_columns):
    """What an importance matrix has for a tensor: a mean of squares for each column."""
    seed = sum(name.encode()) + n_columns
    values = floats(seed, (n_columns,)) - 1
    return (values * values * 64 + numpy.float32(1e-4)).astype(numpy.float32)


def make(name, root, fixtures):
    """Makes the folder below `root` and gives its path."""
    folder = root / name
    folder.mkdir()
    FOLDERS[name](folder, fixtures)
    return folder


# What the converter has to be asked for so that no weight is rounded.
OWN_TYPE = {"Deep-20M-Instruct": "bf16", "narrow_mistral": "f16"}


def has_importance(name):
    """Matrices but for the embedding, of which an importance matrix says nothing either."""
    return name.endswith(".weight") and "_norm" not in name and name not in (
        "token_embd.weight", "rope_freqs.weight")


def short(value):
    """A value itself, or a hash where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return value if len(text) < 200 else "sha256 " + hashlib.sha256(text.encode()).hexdigest()[:16]


def metadata(reader):
    """Every key but those a quantisation sets, with its type."""
    left_out = {"general.file_type", "general.quantization_version"}
    return {
        field.name: [".".join(kind.name for kind in field.types), short(field.contents())]
        for field in reader.fields.values()
        if not field.name.startswith("GGUF.") and field.name not in left_out}


WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def tensors(path):
    """Each tensor's type, lengths and a hash of its bytes, in the order of the file. gguf's own reader
    takes seconds for a vocabulary."""
    data = path.read_bytes()
    at = 8

    def number(form="<Q"):
        nonlocal at
        (value,) = struct.unpack_from(form, data, at)
        at += struct.calcsize(form)
        return value

    def text():
        nonlocal at
        size = number()
        at += size
        return data[at - size:at].decode()

    def skip(kind):
        nonlocal at
        if kind == 8:
            text()
        elif kind == 9:
            element, count = number("<I"), number()
            if element in WIDTHS:
                at += WIDTHS[element] * count
            else:
                for _ in range(count):
                    skip(element)
        else:
            at += WIDTHS[kind]

    n_tensors, n_keys = number(), number()
    for _ in range(n_keys):
        text()
        skip(number("<I"))
    listed = []
    for _ in range(n_tensors):
        name = text()
        dims = [number() for _ in range(number("<I"))]
        listed.append((name, dims, gguf.GGMLQuantizationType(number("<I")), number()))
    start = -(-at // 32) * 32
    described = {}
    for name, dims, kind, offset in listed:
        block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        size = int(numpy.prod(dims)) // block * block_bytes
        digest = hashlib.sha256(data[start + offset:start + offset + size]).hexdigest()[:12]
        described[name] = f"{kind.name} {'x'.join(map(str, dims))} {digest}"
    return described


def summary(described):
    """How many tensors of which type, and a hash of all that is described."""
    kinds = [description.split()[0] for description in described.values()]
    text = "\n".join(f"{name} {description}" for name, description in described.items())
    return {"types": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
            "sha256": hashlib.sha256(text.encode()).hexdigest()}
