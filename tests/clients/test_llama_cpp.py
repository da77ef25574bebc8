"""Greedy text side by side with llama.cpp on the same file: the same, or apart only at a near tie."""
import gguf
import httpx
import numpy
import pytest
import xllamacpp
from gguf.quants import dequantize

N_TOKENS = 64
# Where the two texts part, llama.cpp's own two likeliest tokens must be this close (difference of log
# probabilities). Both engines round activations to eight bits, each in its own way, and that alone
# moves such a difference by tenths. So llama.cpp is asked twice, rounding (the file) and not (its
# weights decoded), and one of its two opinions has to be a near tie; both are shown.
#
# How near follows from what rounding alone does to llama.cpp (benches/RESULTS.md): at one position in a
# hundred it diverges from its own weights by 0.0102 nats. Between two tokens of about one half each, a
# divergence KL is a gap moved by sqrt(8 KL), 0.29.
NEAR_TIE = 0.29

PROMPTS = [
    "What is the capital of France?",
    "Write a short poem about the sea.",
    "Explain photosynthesis to a child.",
    "List five fruits that are red.",
    "Write a Python function that adds two numbers.",
    "Who wrote Romeo and Juliet?",
    "Translate 'good morning' into Spanish.",
    "What is 12 plus 30? Explain step by step.",
]


def serve(path):
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx = 2048
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = 2
    parameters.verbosity = -1
    return xllamacpp.Server(parameters)


def decode(source, destination):
    """Writes the same model with every weight decoded to f32."""
    reader, writer = gguf.GGUFReader(source), gguf.GGUFWriter(destination, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        value = 0 if field.name == "general.file_type" else field.contents()
        if field.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_array(field.name, value)
        else:
            writer.add_key_value(field.name, value, field.types[0])
    for tensor in reader.tensors:
        writer.add_tensor(
            tensor.name, dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def llama_cpp(smollm2):
    server = serve(smollm2)
    yield server.listening_address
    del server


@pytest.fixture(scope="module")
def llama_cpp_in_floats(smollm2, tmp_path_factory):
    path = tmp_path_factory.mktemp("decoded") / "decoded.gguf"
    decode(smollm2, path)
    server = serve(path)
    yield server.listening_address
    del server
    path.unlink()


def post(url, path, body):
    answer = httpx.post(f"{url}/{path}", timeout=300, json=body)
    answer.raise_for_status()
    return answer.json()


def conversation(prompt):
    return [{"role": "user", "content": prompt}]


def ask(url, model, prompt, **more):
    return post(url, "v1/chat/completions", {
        "model": model, "messages": conversation(prompt),
        "temperature": 0, "max_tokens": N_TOKENS, **more})["choices"][0]


def common_tokens(choice, ours):
    """The peer's tokens for as long as they agree with our text, and their bytes."""
    ids, offset = [], 0
    for entry in choice["logprobs"]["content"]:
        token = bytes(entry["bytes"])
        if ours[offset:offset + len(token)] != token:
            break
        ids.append(entry["id"])
        offset += len(token)
    return ids, offset


def gap_after(url, prompt, answer_ids):
    """How far apart the two likeliest next tokens are."""
    text = post(url, "apply-template", {"messages": conversation(prompt)})["prompt"]
    ids = post(url, "tokenize", {"content": text, "add_special": True, "parse_special": True})
    answer = post(url, "completion", {
        "prompt": ids["tokens"] + answer_ids, "n_predict": 1, "n_probs": 2, "temperature": 0})
    best, second = [entry["logprob"] for entry in answer["completion_probabilities"][0]["top_logprobs"]]
    return abs(best - second)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_text_is_llama_cpps_or_parts_at_a_near_tie(
        served, llama_cpp, llama_cpp_in_floats, smollm2, prompt):
    ours = ask(served.url, smollm2.stem, prompt)["message"]["content"]
    theirs = ask(llama_cpp, "default", prompt, logprobs=True, top_logprobs=2)
    if ours == theirs["message"]["content"]:
        print(f"{prompt!r}: identical, {len(ours)} characters")
        return
    ids, offset = common_tokens(theirs, ours.encode())
    rounding, floats = [gap_after(url, prompt, ids) for url in (llama_cpp, llama_cpp_in_floats)]
    print(f"{prompt!r}: parts after {offset} bytes, where llama.cpp's best two are "
          f"{rounding:.4f} apart, and {floats:.4f} without rounding")
    assert min(rounding, floats) < NEAR_TIE, f"ours: {ours!r}\nllama.cpp: {theirs['message']['content']!r}"
