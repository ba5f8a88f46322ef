#!/usr/bin/env bash
# Sets up what the tests need (see _environment.sh), checks style and runs them all.
#   bash launch/test.sh                      everything
#   bash launch/test.sh tests/commands/test_cli.py    only some: arguments go to pytest
set -euo pipefail
# shellcheck source=launch/_environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/_environment.sh"
cd "$root"

install_environment test
say "ruff, pyright, shellcheck and hadolint"
"$venv/bin/ruff" check --quiet .
"$venv/bin/ruff" format --quiet --check . ||
  fail "some files are not formatted: $venv/bin/ruff format ."
"$venv/bin/pyright" --pythonpath "$venv/bin/python"
"$venv/bin/shellcheck" --external-sources launch/*.sh .ci/run
# Its wheel is for Linux on x86 only.
if [[ -x $venv/bin/hadolint ]]; then "$venv/bin/hadolint" launch/docker/*.Dockerfile; fi
say "pytest"
# Two workers: one process keeps little more than one core busy. Files are begun in the order of
# collection, the longest first (tests/conftest.py): pytest-xdist would keep those of few tests for last.
"$venv/bin/python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
