#!/usr/bin/env bash
# Compiles every kernel alone for a capability (90 unless named) and fails where one spills registers
# although its header says that it does not. Needs nvcc: see toolchain.sh.
set -euo pipefail
cd "$(dirname "$0")"

capability=${1:-90}
failed=0
for source in *.cu; do
    [[ $source == kernels.cu ]] && continue
    report=$(nvcc -std=c++17 -O3 -arch="sm_$capability" -cubin -Xptxas -v -o /dev/null "$source" 2>&1) || {
        echo "$report"
        echo "$source: does not compile for sm_$capability"
        failed=1
        continue
    }
    registers=$(grep -oE 'Used [0-9]+ registers' <<<"$report" | grep -oE '[0-9]+' | sort -n | tail -1)
    spilled=$(grep -oE '[0-9]+ bytes spill stores' <<<"$report" | grep -oE '^[0-9]+' | sort -n | tail -1)
    echo "$source: at most $registers registers, $spilled bytes spilled"
    if [[ $spilled != 0 ]] && grep -q "^// Registers: no spills on sm_$capability" "$source"; then
        echo "$source: its header says that it does not spill"
        failed=1
    fi
done
exit "$failed"
