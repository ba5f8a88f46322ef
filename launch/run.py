#!/usr/bin/env python3
"""Launches a run on this machine, TPU VMs, GKE, Slurm or in a container.

    python launch/run.py --on=WHERE [options of that place] train --config=… --workdir=…

What follows `train` is what `lidit train` takes, the same everywhere. Needs Python 3.11 and the
tools of the place, nothing else.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from launcher.command_line import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
