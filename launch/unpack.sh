#!/usr/bin/env bash
# Runs beside the parts written by launch/pack.sh, on a machine without a network: checks and joins
# them, installs the packages into one folder, and prints how to run lidit. Nothing else changes.
#   bash unpack.sh [--to=DIR]      DIR: default lidit-jax, beside this script
# LIDIT_PYTHON selects an interpreter other than python3.
set -euo pipefail
parts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
to=$parts/lidit-jax
for argument in "$@"; do
  case $argument in
    --to=?*) to=${argument#*=} ;;
    *) printf 'error: unknown argument %s\n' "$argument" >&2 && exit 2 ;;
  esac
done

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

[[ -f $parts/parts.sha256 ]] || fail "$parts/parts.sha256 is missing: copy it again"
missing=() damaged=() names=()
while read -r sum name; do
  names+=("$parts/$name")
  if [[ ! -f $parts/$name ]]; then
    missing+=("$name")
  elif [[ $(sha256sum <"$parts/$name") != "$sum"* ]]; then
    damaged+=("$name")
  fi
done <"$parts/parts.sha256"
if ((${#missing[@]})); then printf 'missing: %s\n' "${missing[@]}" >&2; fi
if ((${#damaged[@]})); then printf 'damaged: %s\n' "${damaged[@]}" >&2; fi
if ((${#missing[@]} + ${#damaged[@]})); then
  fail "${#missing[@]} of ${#names[@]} parts are missing and ${#damaged[@]} damaged: copy them again"
fi
((${#names[@]})) || fail "$parts/parts.sha256 lists no part: copy it again"
[[ ! -e $to ]] || fail "$to already exists: delete it, or name another folder with --to"
python=$(command -v "${LIDIT_PYTHON:-python3}") ||
  fail "no ${LIDIT_PYTHON:-python3} here: set LIDIT_PYTHON to an interpreter"

mkdir -p "$(dirname "$to")"
work=$(mktemp -d "$(dirname "$to")/.unpack.XXXXXX")
trap 'rm -rf "$work"' EXIT
cat "${names[@]}" | tar --extract --directory="$work"
tree=$work/lidit-jax
wanted=$(<"$tree/python")
found=$("$python" -c 'import sys; print("{}.{}".format(*sys.version_info))')
[[ $found == "$wanted" ]] ||
  fail "the packages are for Python $wanted, $python is $found: set LIDIT_PYTHON to a Python $wanted"
"$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile \
  --no-cache-dir --target "$tree/packages" "$tree"/wheels/*.whl
version=$(sed -n 's/^Version: //p' "$tree/METADATA")
mkdir "$tree/packages/lidit_jax-$version.dist-info"
mv "$tree/METADATA" "$tree/packages/lidit_jax-$version.dist-info/METADATA"
rm -r "$tree/wheels"
mv "$tree" "$to"
to=$(cd "$to" && pwd)
cat >"$to/lidit" <<LIDIT
#!/usr/bin/env bash
export PYTHONPATH=$(printf %q "$to/project:$to/packages")\${PYTHONPATH:+:\$PYTHONPATH}
exec $(printf %q "$python") -P -m lidit_jax.cli "\$@"
LIDIT
chmod +x "$to/lidit"
printf 'unpacked. To check this machine, and for a first image:\n  %q doctor\n  %q %s\n' "$to/lidit" \
  "$to/lidit" 'sample --checkpoint=demo --prompt="a red circle" --out=circle.png'
