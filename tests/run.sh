#!/usr/bin/env bash
# Builds everything and runs every test; then the tests of core, kernels and ops again under sanitizers.
# Installs nothing. MONOID_SKIP_SANITIZERS=1 leaves the second half out.
set -euo pipefail
cd "$(dirname "$0")/.."
missing=$(tools/packages.sh)
[[ -z $missing ]] || { echo "Packages are missing. Run: $missing" >&2; exit 1; }

log=$(mktemp)
trap 'rm -f "$log"' EXIT
# build PRESET TARGET: quiet unless something goes wrong.
build() {
  echo "== building $2 ($1)"
  cmake --preset "$1" >"$log" 2>&1 || { cat "$log"; exit 1; }
  cmake --build --preset "$1" --target "$2" >"$log" 2>&1 || { grep -vE '^\[[0-9]+/[0-9]+\]' "$log"; exit 1; }
  grep -A5 'warning:' "$log" || true
}
passed=0 failed=0
# run PRESET: ctest, with the numbers of its summary added up.
run() {
  echo "== testing ($1)"
  ctest --preset "$1" 2>&1 | tee "$log" || true
  local total bad
  total=$(sed -nE 's/.*tests failed out of ([0-9]+).*/\1/p' "$log")
  bad=$(sed -nE 's/.* ([0-9]+) tests failed out of.*/\1/p' "$log")
  [[ -n $total && $total -gt 0 ]] || { echo "ctest ran no test" >&2; exit 1; }
  passed=$((passed + total - bad)) failed=$((failed + bad))
}

build release all
run release
if [[ -z ${MONOID_SKIP_SANITIZERS:-} ]]; then
  build asan sanitized_tests
  run asan
fi
echo
echo "$passed passed, $failed failed"
[[ $failed -eq 0 ]]
