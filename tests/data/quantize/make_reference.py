#!/usr/bin/env python3
"""Makes the facts that tests/clients/test_quantize.py compares with: what llama.cpp makes of the folders of
tests/clients/hf_folders.py.

    LCP=<an unpacked source archive of llama-cpp-python 0.3.35>
    python3 -m venv VENV
    VENV/bin/pip install numpy torch==2.15.0 transformers==5.24.0 sentencepiece==0.2.3 protobuf pyyaml
    VENV/bin/pip install llama-cpp-python==0.3.36
    PYTHONPATH=$LCP/vendor/llama.cpp/gguf-py VENV/bin/python tests/data/quantize/make_reference.py \
        $LCP/vendor/llama.cpp [FIXTURES, default target/fixtures]

convert_hf_to_gguf.py makes a file of the folder's own type; `llama_model_quantize` makes the others of it.
Kept are, for each folder, the metadata (long values as a hash) and, for each mix and with and without an
importance matrix, how many tensors have which type and a hash of all their types, lengths and bytes.
"""
import ctypes
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "clients"))

import gguf
import llama_cpp

import hf_folders

MIXES = {
    "F32": 0, "F16": 1, "BF16": 32, "Q8_0": 7, "Q4_0": 2, "Q4_1": 3, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10,
    "Q3_K_S": 11, "Q3_K_M": 12, "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16, "Q5_K_M": 17,
    "Q6_K": 18,
}
WITH_IMPORTANCE = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K"]


def quantize(source, target, mix, importance):
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread, parameters.allow_requantize = MIXES[mix], 2, True
    entries = (llama_cpp.llama_model_imatrix_data * (len(importance) + 1))()
    for entry, (name, values) in zip(entries, importance.items()):
        entry.name = name.encode()
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = len(values)
    if importance:
        parameters.imatrix = entries
    made = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), parameters)
    assert made == 0, (target, made)


def main():
    llama_cpp_source = Path(sys.argv[1])
    fixtures = Path(sys.argv[2] if len(sys.argv) > 2 else "target/fixtures").resolve()
    kept = {}
    with tempfile.TemporaryDirectory() as root:
        root = Path(root)
        for name in hf_folders.FOLDERS:
            folder = hf_folders.make(name, root, fixtures)
            whole = root / f"{name}.gguf"
            subprocess.run(
                [sys.executable, llama_cpp_source / "convert_hf_to_gguf.py", folder, "--outfile", whole,
                 "--outtype", hf_folders.OWN_TYPE[name]], check=True)
            columns = {tensor.name: hf_folders.importance(tensor.name, int(tensor.shape[0]))
                       for tensor in gguf.GGUFReader(whole).tensors
                       if hf_folders.has_importance(tensor.name)}
            kept[name] = {"metadata": hf_folders.metadata(gguf.GGUFReader(whole)), "mixes": {}}
            runs = [(mix, {}) for mix in MIXES] + [(mix, columns) for mix in WITH_IMPORTANCE]
            for mix, importance in runs:
                target = root / "quantized.gguf"
                quantize(whole, target, mix, importance)
                key = mix + (" with importance" if importance else "")
                kept[name]["mixes"][key] = hf_folders.summary(hf_folders.tensors(target))
                target.unlink()
    (HERE / "llama_cpp.json").write_text(json.dumps(kept, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
