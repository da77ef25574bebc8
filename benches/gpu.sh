#!/usr/bin/env bash
# The battery: everything a GPU has to show, in one run of some minutes, on a node that has a driver and
# Python but neither toolchain nor network.
#
# Here, without a GPU:   make fixtures cuda && cargo build --release && benches/gpu.sh pack FOLDER
# There:                 benches/gpu.sh run FOLDER [RESULTS]
#
# `pack` puts what the run needs into FOLDER: the program and the tests of the kernels, stripped and
# compressed, and ten layers of SmolLM2. `run` writes its model-shaped files on the spot, beside FOLDER, and
# the table last; RESULTS gets the logs.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

pack() {
    local folder=$1 target=${CARGO_TARGET_DIR:-$root/target} test
    mkdir -p "$folder"
    eval "$("$root/kernels/cuda/toolchain.sh" "$target/cuda-toolchain")"
    test=$(cd "$root" && cargo test --release --locked -p ingle-kernels --features cuda --lib --no-run \
        --target-dir "$target/cuda" --message-format json | python3 -c '
import json, sys
units = [json.loads(line) for line in sys.stdin if line.startswith("{")]
print([u["executable"] for u in units if u.get("executable")][-1])')
    strip -o "$folder/ingle-cuda" "$target/release/ingle-cuda"
    strip -o "$folder/kernels-test" "$test"
    "$target/release/ingle" bench cut-model "$target/fixtures/SmolLM2-135M-Instruct.Q4_1.gguf" "$folder/cut.gguf" \
        --layers 10
    xz -T0 -9 -f "$folder"/{ingle-cuda,kernels-test,cut.gguf}
    du -sh "$folder"
}

# The libraries of the toolkit, which a node may have as Python packages only.
libraries() {
    python3 - <<'PYTHON'
import pathlib, site, sys
found = set()
for place in {*site.getsitepackages(), *sys.path}:
    for library in pathlib.Path(place or ".").glob("nvidia/*/lib"):
        found.add(str(library))
print(":".join(sorted(found)))
PYTHON
}

run() {
    local folder results=${2:-gpu-results}
    folder=$(cd "$1" && pwd)
    mkdir -p "$results"
    results=$(cd "$results" && pwd)
    # Those of CUDA 13: the names a program of another version asks for are other names.
    export LD_LIBRARY_PATH="$(libraries):/usr/local/cuda/lib64:${LD_LIBRARY_PATH:-}"
    # Not local: it is removed when the shell ends.
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    for file in ingle-cuda kernels-test cut.gguf; do
        python3 -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), open(sys.argv[2], "wb"))' \
            "$folder/$file.xz" "$work/$file"
    done
    chmod +x "$work"/{ingle-cuda,kernels-test}
    python3 "$root/benches/gpu_battery.py" --ingle "$work/ingle-cuda" --kernels-test "$work/kernels-test" \
        --cut "$work/cut.gguf" --work "$work" --results "$results"
}

case "${1:-}" in
pack) pack "${2:?a folder}" ;;
run) run "${2:?the folder}" "${3:-}" ;;
*) sed -n '2,12p' "$0" >&2; exit 2 ;;
esac
