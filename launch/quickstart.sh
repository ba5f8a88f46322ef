#!/usr/bin/env bash
# From a fresh machine to images, a score and a training run that is stopped and resumed, in about
# ten minutes on two cores.
#   bash launch/quickstart.sh [FOLDER]     images are written to FOLDER (default: quickstart)
set -euo pipefail
# shellcheck source=launch/_environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
out=${1:-$root/quickstart}
lidit=$venv/bin/lidit
# A fraction of the demo recipe's data, prepared in a minute, with sample images during the run.
small_run=(
  --config.data.train_records=4000 --config.data.distinct_captions=1000
  --config.data.validation_records=64
  --config.training.log_every=10 --config.training.eval_every=50 --config.training.image_every=100
)

# Trains for $1 seconds after the first report of the loss, then stops the run the way a cloud does
# before it takes a machine away. The run saves itself; the same command resumes it.
train_for() {
  local metrics=$out/train/metrics.jsonl mark run
  mark=$(mktemp)
  "$lidit" train --config="$root/configs/demo.py" --workdir="$out/train" "${small_run[@]}" &
  run=$!
  # shellcheck disable=SC2064  # the process that runs now
  trap "kill $run 2>/dev/null || true" EXIT
  until [[ -s $metrics && $metrics -nt $mark ]] || ! kill -0 "$run" 2>/dev/null; do sleep 1; done
  sleep "$1"
  kill -TERM "$run" 2>/dev/null || true
  wait "$run"
  trap - EXIT
  rm -f "$mark"
}

install_environment run
mkdir -p "$out"
rm -rf "$out/train"

cat >"$out/prompts.txt" <<'PROMPTS'
a red circle
a striped cyan moon
a dotted pink circle
a small orange cross and a large blue star
two blue stars
three red squares
four yellow hearts
a green circle and a purple star
a red triangle to the left of a blue circle
a yellow square above a cyan cross
below a yellow circle there is a blue triangle
a heart that is pink
on the left a red star, on the right a blue square
a dotted orange circle and a striped blue cross
a tiny yellow square next to a huge purple moon
I would like to see three green crosses
PROMPTS
say "sampling 16 images from the packaged model"
"$lidit" sample --checkpoint=demo --prompts="$out/prompts.txt" --grid --out="$out/grid.png"

say "scoring the model on scenes with known truth"
"$lidit" eval scenes --checkpoint=demo --per-task=4 --out="$out/scores"

say "training the demo recipe from scratch on little data, then stopping it"
train_for 120
say "resuming it from its checkpoint"
train_for 60

say "done. The images:"
printf '  %s\n    %s\n' \
  "$out/grid.png" "images of the packaged model for 16 prompts" \
  "$out/scores/hits_and_misses.png" "its images for the benchmark, with their scores" \
  "$out/train/loss.png" "the loss of the run that was trained, stopped and resumed" \
  "$out/train/images/" "sample images of that run"
