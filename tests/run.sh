#!/usr/bin/env bash
# Builds everything and runs every test; where that build has CUDA, the library once more without it; then the tests of
# core, kernels and ops under sanitizers. Tests of CUDA kernels skip where there is no GPU.
# Installs nothing. MONOID_SKIP_SANITIZERS=1 leaves the last part out.
set -euo pipefail
cd "$(dirname "$0")/.."
missing=$(tools/packages.sh)
[[ -z $missing ]] || { echo "Packages are missing. Run: $missing" >&2; exit 1; }

log=$(mktemp)
trap 'rm -f "$log"' EXIT
# build PRESET TARGET...: quiet unless something goes wrong.
build() {
  local preset=$1
  shift
  echo "== building $* ($preset)"
  cmake --preset "$preset" >"$log" 2>&1 || { cat "$log"; exit 1; }
  cmake --build --preset "$preset" --target "$@" >"$log" 2>&1 || { grep -vE '^\[[0-9]+/[0-9]+\]' "$log"; exit 1; }
  grep -A5 'warning:' "$log" || true
}
passed=0 failed=0
# run PRESET [ARGUMENT...]: ctest, with the numbers of its summary added up.
run() {
  echo "== testing ($1)"
  ctest --preset "$@" 2>&1 | tee "$log" || true
  local total bad
  total=$(sed -nE 's/.*tests failed out of ([0-9]+).*/\1/p' "$log")
  bad=$(sed -nE 's/.* ([0-9]+) tests failed out of.*/\1/p' "$log")
  [[ -n $total && $total -gt 0 ]] || { echo "ctest ran no test" >&2; exit 1; }
  passed=$((passed + total - bad)) failed=$((failed + bad))
}

build release all
run release
if grep -q '^MONOID_HAS_CUDA:.*=ON' build/CMakeCache.txt; then
  build cpu-only core_tests ops_tests train
  run cpu-only -R '^(core|ops)$'
fi
if [[ -z ${MONOID_SKIP_SANITIZERS:-} ]]; then
  build asan sanitized_tests
  run asan
fi
echo
echo "$passed passed, $failed failed"
[[ $failed -eq 0 ]]
