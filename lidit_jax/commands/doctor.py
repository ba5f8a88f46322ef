"""`lidit doctor`: report about this machine, as text or JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from lidit_jax.commands.arguments import add_command

_EXAMPLES = """\
  lidit doctor                a table, with a remedy for each problem
  lidit doctor --json         the same for scripts

Exit status 0: this machine can train; 1: a requirement of training is missing.
"""

_MARKS = {"ok": ("ok", "green"), "warning": ("limited", "yellow"), "missing": ("missing", "red")}


def add_parser(subparsers: Any) -> None:
    """Add `lidit doctor`."""
    parser = add_command(
        subparsers, "doctor", "show what this machine has, and what is missing", _EXAMPLES, run
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Print the report and return the exit status; 1 when a requirement of training is missing."""
    from lidit_jax.commands.doctor_findings import can_train, examine

    findings = examine()
    ready = can_train(findings)
    if options.json:
        report = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps({"can_train": ready, "findings": report}, indent=2))
    else:
        _print_table(findings, ready)
    return 0 if ready else 1


def _print_table(findings: list, ready: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from lidit_jax.io.console import NoWrapConsole

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for finding in findings:
        value = Text(finding.value)
        if finding.remedy:
            value.append(f"\n-> {finding.remedy}", style="bold")
        table.add_row(finding.name, Text(*_MARKS[finding.status]), value)
    console = NoWrapConsole()
    console.show(table)
    console.say(
        "This machine can train." if ready else "This machine cannot train until that is fixed."
    )
