#!/usr/bin/env bash
# One worker's part of a run: started once, in the background, so that it outlives a lost connection.
#   bash launch/worker.sh follow [--compile-cache=gs://…] -- train --config=… --workdir=…
#       starts the run unless it is running, shows its output, ends with its status
#   bash launch/worker.sh status       prints "running", its exit status, or nothing
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
state=$root/.run
log=$state/log status=$state/status pid=$state/pid

running() { [[ -f $pid ]] && kill -0 "$(<"$pid")" 2>/dev/null; }

# The run itself, and what must follow it. It leaves its compiled programs for the next run.
train() {
  local cache=$1 result=0
  shift
  "${LIDIT_VENV:-$root/.venv}/bin/lidit" "$@" || result=$?
  printf '%s\n' "$result" >"$status.new"
  mv "$status.new" "$status"
  if [[ -n $cache ]] && ((result == 0)) && command -v gcloud >/dev/null; then
    gcloud storage rsync --recursive --no-clobber "${LIDIT_CACHE:-$HOME/.cache/lidit}/xla" "$cache" \
      >/dev/null 2>&1 || true
  fi
}

start() {
  rm -f "$status"
  cd "$root"
  setsid nohup bash "$root/launch/worker.sh" train "$@" >>"$log" 2>&1 </dev/null 9>&- &
  printf '%s\n' $! >"$pid"
}

follow() {
  local cache=''
  if [[ ${1-} == --compile-cache=* ]]; then
    cache=${1#*=}
    shift
  fi
  [[ ${1-} == -- ]] || { printf 'error: worker.sh follow -- train …\n' >&2 && exit 2; }
  shift
  mkdir -p "$state"
  exec 9>"$state/lock"
  flock 9
  # A run that has ended well is not started again by a connection that was lost at its end.
  if ! running && [[ ! -f $status || $(<"$status") != 0 ]]; then start "$cache" "$@"; fi
  flock --unlock 9
  touch "$log"
  tail --lines=+1 --follow --pid="$(<"$pid")" "$log"
  [[ -f $status ]] || exit 1
  exit "$(<"$status")"
}

case ${1-} in
  follow) shift && follow "$@" ;;
  train) shift && train "$@" ;;
  status) if running; then echo running; elif [[ -f $status ]]; then cat "$status"; fi ;;
  *) printf 'error: worker.sh follow or status, not "%s"\n' "${1-}" >&2 && exit 2 ;;
esac
