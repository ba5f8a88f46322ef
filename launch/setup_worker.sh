#!/usr/bin/env bash
# Makes one machine ready for `lidit train`: Python, the packages of pyproject.toml for its platform,
# and compiled programs of earlier runs. Safe to run again, after a reboot too; what is there stays.
#   bash launch/setup_worker.sh --platform=tpu|cuda|cpu [--compile-cache=gs://BUCKET/FOLDER]
#        [--store=gcs|s3]        the workdir is in such a bucket
#        [--mount=BUCKET]...     as the folder /gcs/BUCKET, with Cloud Storage FUSE
set -euo pipefail
platform='' compile_cache='' mounts=()
for argument in "$@"; do
  case $argument in
    --platform=*) platform=${argument#*=} ;;
    --compile-cache=*) compile_cache=${argument#*=} ;;
    --store=gcs | --store=s3) export LIDIT_STORE=${argument#*=} ;;
    --mount=*) mounts+=("${argument#*=}") ;;
    *) printf 'error: unknown argument %s\n' "$argument" >&2 && exit 2 ;;
  esac
done
# shellcheck source=launch/_environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
case $platform in
  tpu | cuda | cpu) export LIDIT_PLATFORM=$platform ;;
  *) printf 'error: --platform=tpu, cuda or cpu, not "%s"\n' "$platform" >&2 && exit 2 ;;
esac

# The Python of a TPU VM's Ubuntu 22.04 is too old; uv brings one without touching the system.
provide_python() {
  if (find_python >/dev/null 2>&1); then return; fi
  say "no Python 3.11 to 3.13 here: installing one with uv"
  python3 -m pip install --quiet --user "uv==0.9.7"
  python3 -m uv python install --quiet 3.12
  LIDIT_PYTHON=$(python3 -m uv python find 3.12)
  export LIDIT_PYTHON
}

# https://cloud.google.com/storage/docs/cloud-storage-fuse/install
install_gcsfuse() {
  local key=/usr/share/keyrings/cloud.google.asc base=https://packages.cloud.google.com/apt
  say "installing Cloud Storage FUSE"
  curl -fsSL "$base/doc/apt-key.gpg" | sudo tee "$key" >/dev/null
  echo "deb [signed-by=$key] $base gcsfuse-$(lsb_release -cs) main" |
    sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
  # Unattended upgrades hold apt's lock for minutes after a machine's start.
  sudo apt-get -qq -o DPkg::Lock::Timeout=600 update
  sudo apt-get -qq -o DPkg::Lock::Timeout=600 install -y gcsfuse >/dev/null
}

mount_bucket() {
  local bucket=$1 folder=/gcs/$1
  if mountpoint -q "$folder"; then return; fi
  command -v gcsfuse >/dev/null || install_gcsfuse
  sudo install -d -o "$(id -u)" "$folder"
  gcsfuse --implicit-dirs "$bucket" "$folder" >/dev/null
  say "gs://$bucket is mounted at $folder"
}

# Several processes of one node, or two calls at once, must not install over each other.
exec 9>"$root/.setup.lock"
flock 9
provide_python
# The versions that were tested together, also in a year.
export PIP_CONSTRAINT=$root/launch/constraints.txt
install_environment run
for bucket in ${mounts[@]+"${mounts[@]}"}; do mount_bucket "$bucket"; done
if [[ -n $compile_cache ]]; then
  say "copying compiled programs from $compile_cache"
  local_cache=${LIDIT_CACHE:-$HOME/.cache/lidit}/xla
  mkdir -p "$local_cache"
  # A bucket that has none yet is no reason to stop.
  gcloud storage rsync --recursive --no-clobber "$compile_cache" "$local_cache" >/dev/null 2>&1 ||
    say "none there yet"
fi
say "ready"
