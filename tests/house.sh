#!/usr/bin/env bash
# The rules of the house that a program can check. Prints each breach as FILE: what, and fails if there is one.
set -uo pipefail
cd "$(dirname "$0")/.."
rooms=(core kernels ops layers models tools)
folders=("${rooms[@]}" tests)
breaches=0
breach() {
  echo "$1: $2"
  breaches=$((breaches + 1))
}
sources() { find "$@" -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh'; }

# Files fit in one sitting.
while read -r lines file; do
  [[ $lines -le 400 ]] || breach "$file" "$lines lines, at most 400"
done < <(sources "${folders[@]}" | xargs wc -l | grep -v ' total$')

# A file includes only from its own room or one to the left.
for ((i = 0; i < ${#rooms[@]}; ++i)); do
  for right in "${rooms[@]:i+1}" tests; do
    while IFS= read -r file; do breach "$file" "includes from $right/, which is to the right of ${rooms[i]}/"; done \
      < <(sources "${rooms[i]}" | xargs grep -lE "#include \"monoid/$right/")
  done
done
while IFS= read -r line; do breach "${line%%:*}" "include it by its full name: ${line#*:}"; done \
  < <(sources "${folders[@]}" | xargs grep -E '#include "' | grep -v '#include "monoid/')

# Headers: once each, and nothing of other projects in what users get.
for header in $(find "${folders[@]}" -name '*.h'); do
  [[ $(head -n 1 "$header") == "#pragma once" ]] || breach "$header" "does not begin with #pragma once"
done
while IFS= read -r file; do breach "$file" "shows a third-party header"; done \
  < <(find core kernels ops layers models -name '*.h' | xargs grep -lE '#include <(nlohmann|CLI|omp\.h|cblas|zlib|catch2|benchmark)')
while IFS= read -r file; do breach "$file" "includes CUDA outside kernels/cuda/"; done \
  < <(sources "${folders[@]}" | grep -v '^kernels/cuda/' | xargs grep -lE '#include <(cuda|cub/|cublas|nccl)')
while IFS= read -r line; do breach "${line%%:*}" "defines a macro"; done \
  < <(sources "${folders[@]}" | grep -vE '^(tests/support/|kernels/host_device.h)' | xargs grep -E '^ *# *define')

# The first program of README.md is the one that the tests build.
diff <(awk '/^```cpp$/ {on = 1; next} /^```$/ {if (on) exit} on' README.md) tests/consumer/main.cpp >/dev/null ||
  breach README.md "its first C++ program is not tests/consumer/main.cpp"

echo "house: $breaches breaches"
[[ $breaches -eq 0 ]]
