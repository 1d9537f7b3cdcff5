#!/usr/bin/env bash
# From a fresh clone to generated text: installs missing Debian packages, builds, trains a small minGRU language model on
# this source tree for about two minutes on two cores, and lets it write. Options are passed on to train:
#   tools/quickstart.sh --steps 2000
set -euo pipefail
cd "$(dirname "$0")/.."
run=runs/quickstart

tools/packages.sh install
for program in cmake ninja c++; do
  command -v "$program" >/dev/null || { echo "There is no $program here; install it and try again." >&2; exit 1; }
done

# Kernels for a GPU take minutes to build: not where there is only the toolkit.
preset=release build=build
if command -v nvcc >/dev/null && ! nvidia-smi -L >/dev/null 2>&1; then preset=cpu-only build=build-cpu-only; fi

echo "Building in $build/ (a few minutes the first time)"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{ cmake --preset "$preset" -DMONOID_TESTS=OFF && cmake --build --preset "$preset" --target train generate; } >"$log" 2>&1 || {
  grep -E -A5 'error|Error|FAILED' "$log" || cat "$log"
  echo "The build failed; the lines above say where." >&2
  exit 1
}

echo "Training on monoid's own source, about two minutes on two cores; the loss is in nats per character"
"$build/bin/train" --preset quickstart --out "$run" --overwrite "$@"

echo
echo "What it writes:"
"$build/bin/generate" --checkpoint "$run" --prompt "Tensor " --length 400 --temperature 0.7
echo
echo "More: $build/bin/generate --checkpoint $run --prompt 'class ', or train longer: $build/bin/train --help"
