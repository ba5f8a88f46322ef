"""Prompts from a user's file, for benchmarks that are not part of the package."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from lidit_jax.evaluation.suites.prompt_files import checked_prompt, read_lines, read_records
from lidit_jax.evaluation.suites.suite import Item, Picture

LISTING = "images.jsonl"
"""File that lists every image with its prompt, for other scorers."""


class OwnPrompts:
    """Any prompts: lines of text, or JSON lines with `prompt`; scored by the user's own program."""

    name = "prompts"
    title = "prompts of a file"
    folder = ""
    images_per_prompt = 4
    official_prompts = 0
    square = False

    def items(self, source: Path) -> list[Item]:
        """Read a `.jsonl` file with `prompt` in each line, or a text file of one prompt a line."""
        if source.suffix == ".jsonl":
            records = read_records(source, ("prompt",))
            texts = [(record["prompt"], json.dumps(record)) for record in records]
        else:
            texts = [(line.strip(), "") for line in read_lines(source)]
        return [
            Item(
                f"{place:05d}",
                "prompts",
                checked_prompt(f"{source}: line {place + 1}", prompt),
                place,
                record,
            )
            for place, (prompt, record) in enumerate(texts)
        ]

    def pictures(self, item: Item, count: int) -> list[Picture]:
        """Return `LINE/IMAGE.png`, with the line of the prompt from 0."""
        return [
            Picture(f"{item.place:05d}/{sample:04d}.png", item, (sample,))
            for sample in range(count)
        ]

    def text_files(self, items: Sequence[Item], count: int) -> dict[str, str]:
        """Return the listing of all images, each with its prompt and the record of the file."""
        rows = [
            {"file": picture.file, "line": item.place, "sample": picture.samples[0]}
            | {"prompt": item.prompt, "record": json.loads(item.record or "null")}
            for item in items
            for picture in self.pictures(item, count)
        ]
        return {LISTING: "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)}
