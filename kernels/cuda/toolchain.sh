#!/usr/bin/env bash
# Makes a machine able to build Ingle for CUDA without a GPU, a driver or an installed toolkit: the
# compiler and the libraries come as Python packages.
#
#   kernels/cuda/toolchain.sh [FOLDER]
#
# Fills FOLDER (target/cuda-toolchain unless named), unless it is full already, and prints the variables
# that `make cuda` sets: eval "$(kernels/cuda/toolchain.sh)".
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=${1:-target/cuda-toolchain}
packages=(
    nvidia-cuda-nvcc==13.0.88
    nvidia-nvvm==13.0.88
    nvidia-cuda-crt==13.0.88
    nvidia-cuda-runtime==13.0.96
    nvidia-cuda-cccl==13.0.85
    nvidia-cuda-nvrtc==13.0.88
    nvidia-cublas==13.0.2.14
    nvidia-curand==10.4.0.35
)

mkdir -p "$folder"
folder=$(realpath "$folder")
home=$folder/nvidia/cu13
wanted="${packages[*]}"
if [[ ! -f $folder/.ready || $(<"$folder/.ready") != "$wanted" ]]; then
    "${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
        --target "$folder" "${packages[@]}" >&2

    # Packages hold what a program opens, lib….so.13; linkers look for lib….so.
    for library in "$home"/lib/lib*.so.*; do
        name=$(basename "$library")
        ln -sf "$name" "$home/lib/${name%%.so.*}.so"
    done
    ln -sfn lib "$home/lib64"

    # The driver's library comes with the driver. For the linker, one that has its names and nothing
    # behind them: the program opens the real one when it starts.
    mkdir -p "$home/lib/stubs"
    grep -ohE '\bcu[A-Z][A-Za-z0-9_]*\s*\(' "$home/include/cuda.h" | tr -d ' (' |
        awk '{sub(/_v[0-9]$/, ""); print; print $1 "_v2"; print $1 "_v3"; print $1 "_v4"}' | sort -u |
        sed 's/.*/void &(void) {}/' >"$folder/libcuda.c"
    "${CC:-cc}" -shared -fPIC -w -Wl,-soname,libcuda.so.1 -o "$home/lib/stubs/libcuda.so" "$folder/libcuda.c"
    echo "$wanted" >"$folder/.ready"
fi

echo "export CUDA_HOME='$home'"
echo "export PATH='$home/bin':\"\$PATH\""
echo "export LIBRARY_PATH='$home/lib:$home/lib/stubs'\${LIBRARY_PATH:+:\$LIBRARY_PATH}"
