#!/usr/bin/env bash
# The Debian packages that building and testing need, in one place.
#   tools/packages.sh           prints the missing ones, nothing if all are there
#   tools/packages.sh install   installs them
set -euo pipefail
packages=(
  g++ cmake ninja-build
  nlohmann-json3-dev     # JSON, inside .cpp files only
  libopenblas0-pthread   # matrix products, loaded at run time
  libcli11-dev zlib1g-dev libbenchmark-dev # the tools
  catch2 clang-format    # the tests
  ccache                 # optional: makes a second build quick
)

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "This is not a Debian system: install the equivalents of ${packages[*]} yourself." >&2
  exit 0
fi
missing=()
for package in "${packages[@]}"; do
  [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

line="apt-get install -y --no-install-recommends ${missing[*]}"
if [[ ${1:-} != install ]]; then
  echo "$line"
  exit 0
fi
as_root=()
if [[ $(id -u) -ne 0 ]]; then
  command -v sudo >/dev/null || { echo "Packages are missing and there is no sudo. As root, run: $line" >&2; exit 1; }
  as_root=(sudo)
fi
echo "Installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
if ! { "${as_root[@]}" apt-get update -qq && "${as_root[@]}" $line >/dev/null; }; then
  echo "The packages could not be installed (no network, perhaps). Once it is back, run: $line" >&2
  exit 1
fi
