"""`ingle quantize` against what llama.cpp's converter and quantiser make of the same folders: the same
metadata, the same types and, as this is the same arithmetic, the same bytes."""
import ctypes
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import gguf
import httpx
import numpy
import pytest
import xllamacpp

import hf_folders

REFERENCE = Path(__file__).parents[1] / "data" / "quantize" / "llama_cpp.json"
KEPT = json.loads(REFERENCE.read_text())
# All of the deep one; of the narrow one, whose rows ask for smaller blocks, those that show it.
OF_NARROW = ["Q8_0", "Q2_K", "Q3_K_L", "Q4_K_M", "Q4_K_M with importance", "Q5_K_S", "Q6_K"]
RUNS = [(name, mix) for name, kept in KEPT.items() for mix in kept["mixes"]
        if name != "narrow_mistral" or mix in OF_NARROW]


@pytest.fixture(scope="module")
def ingle(request):
    binary = str(Path(request.config.getoption("--ingle")).resolve())

    def run(*arguments, code=0):
        ran = subprocess.run([binary, "quantize", *map(str, arguments)], capture_output=True, text=True)
        assert ran.returncode == code, ran.stderr
        return ran
    run.binary = binary
    return run


@pytest.fixture(scope="module")
def whole(ingle, folders, tmp_path_factory):
    """The tensors of each folder, in its own type."""
    out = tmp_path_factory.mktemp("whole") / "out.gguf"

    def tensors(name):
        ingle(folders[name], out, "--type", hf_folders.OWN_TYPE[name])
        return hf_folders.tensors(out)
    return {name: tensors(name) for name in KEPT}


@pytest.fixture(scope="module")
def folders(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    fixtures = Path(request.config.getoption("--model-files")).resolve()
    return {name: hf_folders.make(name, root, fixtures) for name in hf_folders.FOLDERS}


def write_legacy(path, columns):
    """The older format of an importance matrix: values times calls."""
    with open(path, "wb") as file:
        file.write(len(columns).to_bytes(4, "little"))
        for name, values in columns.items():
            file.write(len(name).to_bytes(4, "little") + name.encode())
            file.write((4).to_bytes(4, "little") + len(values).to_bytes(4, "little"))
            file.write((values * numpy.float32(4)).tobytes())
        file.write((7).to_bytes(4, "little") + (4).to_bytes(4, "little") + b"text")


def write_gguf(path, columns):
    """The newer format: sums of squares and counts."""
    writer = gguf.GGUFWriter(path, "imatrix")
    writer.add_array("imatrix.datasets", ["text"])
    writer.add_uint32("imatrix.chunk_count", 7)
    writer.add_uint32("imatrix.chunk_size", 512)
    for name, values in columns.items():
        writer.add_tensor(f"{name}.in_sum2", values * numpy.float32(8))
        writer.add_tensor(f"{name}.counts", numpy.array([8], numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def importance_file(path, described, mix):
    columns = {name: hf_folders.importance(name, int(description.split()[1].split("x")[0]))
               for name, description in described.items() if hf_folders.has_importance(name)}
    (write_gguf if mix.startswith("Q4") else write_legacy)(path, columns)
    return columns


@pytest.mark.parametrize("name, mix", RUNS)
def test_every_mix_has_llama_cpps_types_and_bytes(ingle, folders, whole, tmp_path, name, mix):
    out, arguments = tmp_path / "out.gguf", []
    if "with importance" in mix:
        importance_file(tmp_path / "imatrix", whole[name], mix)
        arguments = ["--imatrix", tmp_path / "imatrix"]
    mix_name = mix.split()[0]
    ingle(folders[name], out, "--type", mix_name, *arguments)
    assert hf_folders.summary(hf_folders.tensors(out)) == KEPT[name]["mixes"][mix]
    if mix == "Q4_K_M with importance":
        fields = gguf.GGUFReader(out).fields
        assert fields["general.quantization_version"].contents() == 2
        assert fields["general.file_type"].contents() == 15
        assert fields["quantize.imatrix.dataset"].contents() == "text"
        assert fields["quantize.imatrix.chunks_count"].contents() == 7


@pytest.mark.parametrize("name", KEPT)
def test_the_metadata_is_what_llama_cpps_converter_writes(ingle, folders, tmp_path, name):
    ingle(folders[name], tmp_path / "out.gguf", "--type", "Q8_0")
    ours = hf_folders.metadata(gguf.GGUFReader(tmp_path / "out.gguf"))
    assert ours == KEPT[name]["metadata"]


def test_a_file_is_quantised_as_the_folder_is(ingle, folders, tmp_path):
    for name in KEPT:
        ingle(folders[name], tmp_path / "whole.gguf", "--type", hf_folders.OWN_TYPE[name])
        ingle(tmp_path / "whole.gguf", tmp_path / "out.gguf", "--type", "q4_k_m", "--threads", "1")
        made = hf_folders.summary(hf_folders.tensors(tmp_path / "out.gguf"))
        assert made == KEPT[name]["mixes"]["Q4_K_M"]
        assert hf_folders.metadata(gguf.GGUFReader(tmp_path / "out.gguf")) == KEPT[name]["metadata"]


def ggml_chunk(kind, values, importance):
    """What the llama.cpp that is installed here makes of rows."""
    library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    out = numpy.zeros(values.nbytes, numpy.uint8)
    columns = importance.ctypes.data if importance is not None else None
    size = library.ggml_quantize_chunk(
        int(kind), values.ctypes.data, out.ctypes.data, 0, *values.shape, columns)
    return out[:size]


@pytest.mark.parametrize("with_importance", [False, True])
def test_the_installed_llama_cpp_makes_the_same_bytes(ingle, smollm2, tmp_path, with_importance):
    """Not from kept facts: the quantiser itself, on a real matrix of a real model's weights."""
    source = gguf.GGUFReader(smollm2)
    tensor = next(t for t in source.tensors if t.name == "blk.0.ffn_down.weight")
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)[:64].astype(numpy.float32)
    columns = hf_folders.importance(tensor.name, values.shape[1]) if with_importance else None
    model = tmp_path / "one.gguf"
    writer = gguf.GGUFWriter(model, "llama")
    writer.add_block_count(1)
    writer.add_head_count(1)
    writer.add_tensor("blk.0.ffn_gate.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    arguments = []
    if with_importance:
        write_gguf(tmp_path / "imatrix", {"blk.0.ffn_gate.weight": columns})
        arguments = ["--imatrix", tmp_path / "imatrix"]
    for mix in ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K_S", "Q4_K_S", "Q5_K_S", "Q6_K"]:
        ingle(model, tmp_path / "out.gguf", "--type", mix, *arguments)
        ours = gguf.GGUFReader(tmp_path / "out.gguf").tensors[0]
        theirs = ggml_chunk(ours.tensor_type, values, columns)
        assert numpy.array_equal(ours.data.ravel(), theirs), mix


def test_llama_cpp_and_ingle_answer_from_the_file_alike(ingle, folders, tmp_path):
    out = tmp_path / "deep.gguf"
    ingle(folders["Deep-20M-Instruct"], out, "--type", "Q4_K_M")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(out)
    parameters.n_ctx = 256
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = 2
    parameters.verbosity = -1
    server = xllamacpp.Server(parameters)
    answer = httpx.post(f"{server.listening_address}/completion", timeout=60, json={
        "prompt": "The sea is", "n_predict": 8, "temperature": 0})
    answer.raise_for_status()
    assert answer.json()["tokens_predicted"] == 8
    ran = subprocess.run(
        [ingle.binary, "run", "--local", "--temperature", "0", "--max-tokens", "8", out, "The sea is"],
        capture_output=True, text=True, env={**os.environ, "INGLE_HOME": str(tmp_path)})
    assert ran.returncode == 0, ran.stderr


def test_a_run_that_was_killed_is_made_good_by_the_next(ingle, folders, tmp_path):
    out = tmp_path / "out.gguf"
    part = tmp_path / "out.gguf.part"
    out.write_text("what was here before")
    arguments = [ingle.binary, "quantize", folders["Deep-20M-Instruct"], out, "--type", "Q4_K_M"]
    killed = subprocess.Popen(arguments, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not part.exists() or part.stat().st_size == 0:
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert part.exists() and out.read_text() == "what was here before"
    ingle(*arguments[2:])
    assert not part.exists()
    expected = KEPT["Deep-20M-Instruct"]["mixes"]["Q4_K_M"]
    assert hf_folders.summary(hf_folders.tensors(out)) == expected


def test_an_interrupt_leaves_nothing(ingle, folders, tmp_path):
    out, part = tmp_path / "out.gguf", tmp_path / "out.gguf.part"
    ran = subprocess.Popen(
        [ingle.binary, "quantize", folders["Deep-20M-Instruct"], out, "--type", "Q2_K", "--threads", "1"],
        stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not part.exists():
        assert ran.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    ran.send_signal(signal.SIGINT)
    assert ran.wait(timeout=30) == 130
    assert not part.exists() and not out.exists()


def special(id):
    return {"SpecialToken": {"id": id, "type_id": 0}}


A, B = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
PROCESSORS = {
    "none": None,
    "llama3": {"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": True},
        {"type": "TemplateProcessing", "single": [special("<s>"), A],
         "pair": [special("<s>"), A, special("<s>"), B]}]},
    "both ends": {"type": "TemplateProcessing", "single": [special("<s>"), A, special("</s>")],
                  "pair": [special("<s>"), A, special("</s>"), B, special("</s>")]},
    "another end": {"type": "TemplateProcessing", "single": [special("<s>"), A, special("<|end|>")],
                    "pair": [special("<s>"), A, B, special("<|end|>")]},
}
SETTINGS = {
    "none": {},
    "texts": {"bos_token": "<s>", "eos_token": "</s>", "add_eos_token": True},
    "objects": {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": False,
                "pad_token": {"content": "<|end|>"}, "sep_token": "</s>",
                "chat_template": [{"name": "default", "template": "one"}, {"name": "tool use", "template": "two"}]},
}
NAMES = {"unk": "unknown", "sep": "seperator", "pad": "padding"}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("processor", PROCESSORS)
def test_special_tokens_are_those_ggufs_own_reader_finds(ingle, tmp_path, processor, settings):
    folder, out = tmp_path / "small", tmp_path / "out.gguf"
    folder.mkdir()
    texts = ["<s>", "</s>", "<|end|>", "<unk>"]
    config = {
        "architectures": ["LlamaForCausalLM"], "hidden_size": 32, "intermediate_size": 32,
        "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1,
        "max_position_embeddings": 64, "tie_word_embeddings": True, "vocab_size": 8,
        "eos_token_id": [1, 2], "unk_token_id": 3}
    hf_folders.dump(folder / "config.json", config)
    hf_folders.dump(folder / "tokenizer_config.json", SETTINGS[settings])
    hf_folders.dump(folder / "tokenizer.json", {
        "added_tokens": [{"id": id, "content": text, "special": True} for id, text in enumerate(texts)],
        "pre_tokenizer": {"type": "ByteLevel"}, "post_processor": PROCESSORS[processor],
        "model": {"type": "BPE", "vocab": {"a": 4, "b": 5, "ab": 6}, "merges": ["a b"]}})
    hf_folders.write_shards(folder, hf_folders.weights(config, "F32"), 1)
    ingle(folder, out, "--type", "F16")
    fields = gguf.GGUFReader(out).fields
    vocabulary = gguf.SpecialVocab(folder, load_merges=True)
    expected = {f"tokenizer.ggml.{NAMES.get(part, part)}_token_id": id
                for part, id in vocabulary.special_token_ids.items()}
    expected |= {f"tokenizer.ggml.add_{part}_token": adds
                 for part, adds in vocabulary.add_special_token.items() if part in ("bos", "eos", "sep")}
    found = {name: field.contents() for name, field in fields.items()
             if name.endswith("_token_id") or name.startswith("tokenizer.ggml.add_")}
    assert found == expected
    if settings == "objects":
        assert fields["tokenizer.chat_template"].contents() == "one"
        assert fields["tokenizer.chat_template.tool_use"].contents() == "two"
    assert fields["tokenizer.ggml.tokens"].contents() == [*texts, "a", "b", "ab", "[PAD7]"]
    assert fields["tokenizer.ggml.token_type"].contents() == [3, 3, 3, 3, 1, 1, 1, 5]
