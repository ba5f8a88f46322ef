"""Table 1 of the paper (arXiv 2406.11831): scores of ten models on three suites."""

from __future__ import annotations

COLUMNS: dict[str, tuple[str, ...]] = {
    "compbench": ("color", "shape", "texture", "spatial"),
    "geneval": ("single", "two", "count", "colors", "position", "attribution", "overall"),
    "dpg": ("DPG",),
}
"""Columns of each suite, in the order of the table."""
TITLES = {
    "compbench": "T2I-CompBench (of 100)",
    "geneval": "GenEval (of 1)",
    "dpg": "DPG-Bench (of 100)",
}
"""Names of the suites, with their highest score."""

_ROWS = {
    "SD v1.5": "37.50 37.24 41.59 12.04 | .97 .38 .35 .76 .04 .06 .43 | 63.18",
    "SD v2": "50.65 42.21 49.22 13.42 | .98 .51 .44 .85 .07 .17 .50 | 68.09",
    "SDXL": "63.69 54.08 56.37 20.32 | .98 .74 .39 .85 .15 .23 .55 | 74.65",
    "SD3-1B": "- - - - | .97 .72 .52 .78 .16 .34 .58 | -",
    "DALL-E 2": "57.50 54.64 63.74 12.83 | - - - - - - - | -",
    "PixArt-alpha": "68.86 55.82 70.44 20.82 | .98 .50 .44 .80 .08 .07 .48 | 71.11",
    "LI-DiT-1B": "74.08 59.34 69.59 27.57 | .98 .69 .48 .86 .22 .37 .60 | 81.65",
    "DALL-E 3": "81.10 67.50 80.70 - | .96 .47 .47 .83 .43 .45 .67 | 83.50",
    "SD3-8B": "- - - - | .99 .94 .72 .89 .33 .60 .74 | -",
    "LI-DiT-10B": "83.78 68.03 78.50 39.69 | .99 .91 .65 .91 .47 .64 .76 | 84.60",
}


def _parsed(row: str) -> dict[str, dict[str, float | None]]:
    groups = (group.split() for group in row.split("|"))
    return {
        suite: {
            column: None if cell == "-" else float(cell)
            for column, cell in zip(COLUMNS[suite], group, strict=True)
        }
        for suite, group in zip(COLUMNS, groups, strict=True)
    }


TABLE = {model: _parsed(row) for model, row in _ROWS.items()}
"""Score by model, suite and column, as printed; None where the paper has none. T2I-CompBench and
DPG-Bench are out of 100, GenEval is out of 1."""
