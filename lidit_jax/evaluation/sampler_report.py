"""Report of a sampler comparison: tables and the recommended default."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def threshold(rows: Sequence[Row]) -> float:
    """Return the lowest score within one standard error of the best score."""
    best = max(rows, key=lambda row: row["score"])
    score, n = best["score"], best["images_scored"]
    return score - math.sqrt(score * (1 - score) / n)


def recommended(rows: Sequence[Row]) -> Row:
    """Return the row without caching that reaches `threshold` in the fewest evaluations.

    Evaluations are compared rather than seconds, which depend on the load of the machine. Ties are
    broken by the higher score.
    """
    computed = [row for row in rows if row["cache_interval"] == 1]
    least = threshold(computed)
    good = [row for row in computed if row["score"] >= least]
    return min(good, key=lambda row: (row["evaluations"], -row["score"]))


def caching(rows: Sequence[Row], usual: Row) -> list[Row]:
    """Return the rows of the default sampler and steps, by cache interval."""
    return sorted(
        (row for row in rows if all(row[name] == usual[name] for name in ("sampler", "steps"))),
        key=lambda row: row["cache_interval"],
    )


def fewer_steps(rows: Sequence[Row], usual: Row) -> list[Row]:
    """Return the rows of the default sampler without caching, by steps."""
    return sorted(
        (row for row in rows if row["sampler"] == usual["sampler"] and row["cache_interval"] == 1),
        key=lambda row: row["steps"],
    )


def markdown(rows: Sequence[Row], usual: Row) -> str:
    """Return a Markdown table of samplers by steps, the recommended default, and step caching.

    Args:
      rows: of `samplers.json`, complete or not.
      usual: default sampler and steps of the checkpoint.
    """
    computed = [row for row in rows if row["cache_interval"] == 1]
    counts = sorted({row["steps"] for row in computed})
    cells = {
        (row["sampler"], row["steps"]): f"{row['score']:.1%} ({row['seconds_an_image']:.3f} s)"
        for row in computed
    }
    best = recommended(rows)
    lines = [
        "| sampler | " + " | ".join(f"{count} steps" for count in counts) + " |",
        "|---|" + "---:|" * len(counts),
        *(
            f"| `{sampler}` | "
            + " | ".join(cells.get((sampler, count), "") for count in counts)
            + " |"
            for sampler in sorted({row["sampler"] for row in computed})
        ),
        "",
        f"Score, and seconds per image. Recommended: `{best['sampler']}`, {best['steps']} steps: "
        f"the fewest evaluations of the network with a score of {threshold(computed):.1%} or more, "
        f"which is one standard error below the best ({best['images_scored']} images per row).",
    ]
    cached = caching(rows, usual)
    if len(cached) > 1:
        slowest = cached[0]["seconds_an_image"]
        lines += [
            "",
            f"Step caching, `{usual['sampler']}`, {usual['steps']} steps:",
            "",
            "| computed in full | score | s per image | speed-up | PSNR to interval 1 |",
            "|---|---:|---:|---:|---:|",
        ]
        for row in cached:
            interval, seconds = row["cache_interval"], row["seconds_an_image"]
            likeness = row["psnr_to_usual"]
            name = "every evaluation" if interval == 1 else f"every {interval}."
            shown = "equal" if likeness is None else f"{likeness:.1f} dB"
            lines.append(
                f"| {name} | {row['score']:.1%} | {seconds:.3f} | {slowest / seconds:.2f} "
                f"| {shown} |"
            )
    return "\n".join(lines) + "\n"
