#!/usr/bin/env python3
"""How long `ingle quantize` takes and how much memory, against llama.cpp's quantiser on the same file.

    pip install llama-cpp-python==0.3.36 gguf==0.19.0 numpy
    benches/peers/quantize.py INGLE FIXTURES WORK [--layers 1] [--rounds 2] [--types Q4_K_M,Q8_0]

Makes a folder in WORK with layers as wide as an 8B model's, in BF16, and has both make files of it in turn.
Deletes what it made.
"""
import argparse
import shutil
import statistics
import struct
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "clients"))

import numpy

import hf_folders

FTYPES = {"Q8_0": 7, "Q4_0": 2, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18}
THREADS = 2


def make_folder(folder, fixtures, n_layers):
    config = {
        "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": n_layers, "num_attention_heads": 32, "num_key_value_heads": 8,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
        "vocab_size": 49152, "tie_word_embeddings": True}
    folder.mkdir()
    hf_folders.dump(folder / "config.json", config)
    hf_folders.smollm_tokenizer(folder, fixtures)
    hf_folders.floats = lambda seed, shape: numpy.lib.stride_tricks.as_strided(
        numpy.zeros(1, numpy.float32), shape, [0] * len(shape))
    shapes = {name: values.shape for name, (_, values) in hf_folders.weights(config, "BF16").items()}
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(numpy.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    random = numpy.random.default_rng(1)
    with open(folder / "model.safetensors", "wb") as file:
        text = hf_folders.json.dumps(header).encode()
        file.write(struct.pack("<Q", len(text)) + text)
        for shape in shapes.values():
            left = int(numpy.prod(shape))
            while left:
                part = min(left, 1 << 24)
                values = random.standard_normal(part, dtype=numpy.float32) * numpy.float32(0.02)
                file.write(hf_folders.to_bf16(values).tobytes())
                left -= part
    return offset


def timed(command):
    """Seconds, and the most memory it had resident at once, as seen every few milliseconds."""
    began = time.monotonic()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    memory = 0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        # Gone where the program has ended.
        peaks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
        memory = max([memory, *(int(kilobytes) * 1024 for kilobytes in peaks)])
        time.sleep(0.005)
    assert process.returncode == 0, command
    return time.monotonic() - began, memory


THEIRS = """
import sys, llama_cpp
p = llama_cpp.llama_model_quantize_default_params()
p.ftype, p.nthread = int(sys.argv[3]), int(sys.argv[4])
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), p))
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("ingle", type=Path)
    parser.add_argument("fixtures", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--types", default="Q4_K_M,Q8_0")
    options = parser.parse_args()
    work = options.work / "quantize-bench"
    work.mkdir()
    ingle = [options.ingle.resolve(), "quantize", "--threads", THREADS, "--type"]
    try:
        n_bytes = make_folder(work / "folder", options.fixtures, options.layers)
        whole, out = work / "whole.gguf", work / "out.gguf"
        seconds, memory = timed([*ingle, "BF16", work / "folder", whole])
        print(f"folder of {n_bytes / 1e9:.2f} GB to BF16: {seconds:.1f} s, {memory / 1e6:.0f} MB at most")
        for kind in options.types.split(","):
            seconds, memory = timed([*ingle, kind, work / "folder", out])
            print(f"folder to {kind}: {seconds:.1f} s, {memory / 1e6:.0f} MB at most", flush=True)
            ratios, ours, theirs = [], [], []
            for _ in range(options.rounds):
                ours.append(timed([*ingle, kind, whole, out]))
                mine = out.read_bytes()[-(1 << 20):]
                theirs.append(timed([sys.executable, "-c", THEIRS, whole, out, FTYPES[kind], THREADS]))
                assert out.read_bytes()[-(1 << 20):] == mine, "other bytes"
                ratios.append(theirs[-1][0] / ours[-1][0])
            print(f"{kind}: ingle {[round(s, 1) for s, _ in ours]} s, {max(m for _, m in ours) / 1e6:.0f} MB; "
                  f"llama.cpp {[round(s, 1) for s, _ in theirs]} s, {max(m for _, m in theirs) / 1e6:.0f} MB; "
                  f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})", flush=True)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
