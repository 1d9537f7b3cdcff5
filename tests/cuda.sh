#!/usr/bin/env bash
# Everything that wants a GPU, in one go: builds, runs the tests tagged [cuda] side by side, and the op registry and the
# quick scans under compute-sanitizer. Prints a line each and the output of what failed. `bench --device cuda` is apart.
#   tests/cuda.sh [BUILD_FOLDER]     default: build, configured with the release preset if it is not there
# MONOID_SKIP_SANITIZERS=1 leaves the last part out.
set -uo pipefail
cd "$(dirname "$0")/.."
build=${1:-build}
programs=(core_tests kernels_tests ops_tests layers_tests models_tests)
[[ -f $build/build.ninja ]] || cmake --preset release -B "$build" >/dev/null || exit 1
cmake --build "$build" --target "${programs[@]}" train parity >"$build/cuda-build.log" 2>&1 ||
  { grep -vE '^\[[0-9]+/[0-9]+\]' "$build/cuda-build.log"; exit 1; }
grep -A5 'warning:' "$build/cuda-build.log"
gpu=$("$build/bin/train" --version | tail -n 1)
echo "$gpu"
[[ $gpu == *'cuda:0 is'* ]] || { echo "cuda.sh: no GPU that this build can use, so nothing to run" >&2; exit 77; }

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
# check NAME COMMAND...: in the background; its line and, if it failed, its output come at the end.
check() {
  local name=$1 begin=$SECONDS
  shift
  if "$@" >"$logs/$name.log" 2>&1; then
    echo "passed $name, $((SECONDS - begin)) s: $(grep -E 'All tests passed|ERROR SUMMARY|RACECHECK|files agree' "$logs/$name.log" | tail -n 1)"
  else
    echo "FAILED $name, $((SECONDS - begin)) s"
    touch "$logs/$name.failed"
  fi
}

tests=$build/bin
for family in attention bias_gelu conv copy cross_entropy decoding dropout elementwise embedding gated_gelu matmul \
  matrix_scan norm reduce rotary scan softmax; do
  check "kernels-$family" "$tests/kernels_tests" "[cuda][$family]" &
done
check core "$tests/core_tests" "[cuda]" &
check goldens "$tests/parity" --device cuda tests/goldens/*.safetensors &
for program in ops layers models; do check "$program" "$tests/${program}_tests" "[cuda]" & done
wait
if [[ -z ${MONOID_SKIP_SANITIZERS:-} ]]; then
  for tool in memcheck racecheck; do
    sanitizer=(compute-sanitizer --tool "$tool" --error-exitcode 1)
    check "$tool-registry-f32" "${sanitizer[@]}" "$tests/ops_tests" "every op on CUDA in f32*" &
    check "$tool-registry-bf16" "${sanitizer[@]}" "$tests/ops_tests" "every op on CUDA in bf16*" &
    check "$tool-scans" "${sanitizer[@]}" "$tests/kernels_tests" "[scan][quick],[matrix_scan][quick]" &
  done
  wait
fi
failed=("$logs"/*.failed)
[[ -e ${failed[0]} ]] || exit 0
for mark in "${failed[@]}"; do
  echo "== ${mark%.failed}" | sed "s@$logs/@@"
  grep -v 'no GPU' "${mark%.failed}.log" | head -n 60
done
exit 1
