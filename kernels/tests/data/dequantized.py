"""Writes dequantized.bin: random blocks of every kind, and what the `gguf` package decodes them to.

For each kind, in the order of `WeightType::ALL` from F16 on: two blocks (64 values for F16 and BF16),
then the values as little-endian f32. Run with: pip install gguf==0.19.0 numpy
"""

import pathlib

import gguf
import numpy as np

KINDS = "F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K".split()
# Where the half-precision floats of a block are.
HALVES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}

rng = np.random.default_rng(2)
out = b""
for name in KINDS:
    kind = gguf.GGMLQuantizationType[name]
    _, size = gguf.GGML_QUANT_SIZES[kind]
    if name in ("F16", "BF16"):
        values = rng.normal(size=64).astype(np.float32)
        blocks = gguf.quants.quantize(values[None], kind).tobytes()
    else:
        data = rng.integers(0, 256, (2, size), dtype=np.uint8)
        for at in HALVES[name]:
            halves = rng.normal(size=2).astype(np.float16)
            data[:, at : at + 2] = halves.view(np.uint8).reshape(2, 2)
        blocks = data.tobytes()
    raw = np.frombuffer(blocks, dtype=np.uint8)[None]
    if name == "F16":
        raw = raw.view(np.float16)
    values = gguf.quants.dequantize(raw, kind).astype("<f4")
    out += blocks + values.tobytes()

pathlib.Path(__file__).with_suffix(".bin").write_bytes(out)
