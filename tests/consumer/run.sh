#!/usr/bin/env bash
# Builds and runs the consumer project as a user would: against an installed copy, or with monoid as a subdirectory
# and a shared library. Usage: run.sh installed|subdirectory BUILD_FOLDER CMAKE
set -euo pipefail
way=$1 build=$2 cmake=$3
consumer=$(cd "$(dirname "$0")" && pwd)
work=$build/consumer/$way
launcher=$(command -v ccache || true)
rm -rf "$work"
mkdir -p "$work"

case $way in
  installed)
    "$cmake" --install "$build" --prefix "$work/prefix" >"$work/install.log"
    "$cmake" -S "$consumer" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$work/prefix"
    ;;
  subdirectory)
    "$cmake" -S "$consumer" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Debug \
      -DMONOID_SOURCE="$consumer/../.." -DBUILD_SHARED_LIBS=ON -DMONOID_CUDA=OFF -DCMAKE_CXX_COMPILER_LAUNCHER="$launcher"
    ;;
esac
"$cmake" --build "$work/build"
"$(find "$work/build" -name consumer -type f)"

if [[ $way == installed ]]; then
  # Every header that users get must compile alone, without warnings, and without anything this library builds with.
  cd "$work/prefix/include"
  grep -rlE '<(nlohmann|CLI|omp|cblas|zlib)' . && echo "installed headers show a private dependency" && exit 1
  find monoid -name '*.h' -print0 | xargs -0 -P "$(nproc)" -I{} "${CXX:-c++}" -std=c++20 -I. -Wall -Wextra -Wpedantic \
    -Werror -fsyntax-only -x c++ -include {} /dev/null
  echo "$(find monoid -name '*.h' | wc -l) installed headers compile alone"
fi
