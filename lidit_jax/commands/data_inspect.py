"""Summary of an index for `lidit data inspect`."""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from rich.table import Table

from lidit_jax.config.text import clean_text
from lidit_jax.data.index.open import Index, open_index
from lidit_jax.data.index.statistics import Lengths, statistics, usable_sample
from lidit_jax.data.sources import registry
from lidit_jax.data.sources.protocol import Record, RecordSource
from lidit_jax.encoders.locations import locate_encoder, locate_tokenizer
from lidit_jax.encoders.tokenizer import PromptTokenizer
from lidit_jax.errors import LiditError
from lidit_jax.evaluation.images import captioned_grid
from lidit_jax.io.console import NoWrapConsole
from lidit_jax.io.image_files import decode, on_white
from lidit_jax.io.output import atomic_file
from lidit_jax.io.progress import slow_progress_bar

_TILE = 192
_BACKGROUND = (224, 224, 224)
_SHOWN = 10


def inspect(options: argparse.Namespace) -> dict[str, Any]:
    """Print an index's statistics, write a contact sheet, and return what was printed.

    Raises:
      LiditError: when there is no such index, its source cannot be read, or a tokenizer is missing.
    """
    tokenizers = {
        name: PromptTokenizer.from_folder(locate_tokenizer(locate_encoder(name)))
        for name in options.tokenizers
    }
    with slow_progress_bar("index") as progress:
        index = open_index(options.index, progress)
    found = statistics(index)
    if tokenizers:
        found["sampled"], found["tokens"] = _tokens(index, tokenizers, options)
    found["first_problems"] = [each._asdict() for each in islice(index.problems(), _SHOWN)]
    _show(found, index)
    if options.out:
        sheet = contact_sheet(index, registry.open_records(index.source), options)
        with atomic_file(options.out) as stream:
            sheet.save(stream, "png")
        print(options.out)
    return found


def contact_sheet(index: Index, source: RecordSource, options: argparse.Namespace) -> Image.Image:
    """Draw sample images, not cropped, each above a caption or its error message."""
    tiles, captions = [], []
    chosen = usable_sample(index, options.images, options.seed)
    if not chosen:
        raise LiditError(f"{options.index} has no usable record: leave out --out")
    with slow_progress_bar("images") as progress:
        for done, number in enumerate(chosen):
            progress(done, len(chosen))
            record = source.read(index.place(number))
            caption = next((clean_text(text) for text in record.captions.values() if text), "")
            tile, mistake = _tile(record, index.key(number))
            tiles.append(tile)
            captions.append(mistake or caption)
        progress(len(chosen), len(chosen))
    return captioned_grid(np.stack(tiles), captions)


def _tile(record: Record, key: str) -> tuple[UInt8[np.ndarray, "192 192 3"], str]:
    """Return an image centered on a gray square, and its error message."""
    square = Image.new("RGB", (_TILE, _TILE), _BACKGROUND)
    mistake = ""
    try:
        image = on_white(decode(io.BytesIO(record.image), key))
        image.thumbnail((_TILE, _TILE), Image.Resampling.LANCZOS)
        square.paste(image, ((_TILE - image.width) // 2, (_TILE - image.height) // 2))
    except LiditError as error:
        mistake = str(error)
    return np.asarray(square), mistake


def _tokens(
    index: Index, tokenizers: Mapping[str, PromptTokenizer], options: argparse.Namespace
) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return caption lengths in tokens in a sample, per tokenizer and caption column."""
    source = registry.open_records(index.source)
    chosen = usable_sample(index, options.sample, options.seed)
    captions: dict[str, list[str]] = {name: [] for name in index.caption_chars}
    with slow_progress_bar("captions") as progress:
        for done, number in enumerate(chosen):
            progress(done, len(chosen))
            for name, text in source.read(index.place(number)).captions.items():
                captions[name].append(clean_text(text))
        progress(len(chosen), len(chosen))
    return len(chosen), {
        name: {
            column: vars(_lengths(tokenizer, [text for text in texts if text]))
            for column, texts in captions.items()
        }
        for name, tokenizer in tokenizers.items()
    }


def _lengths(tokenizer: PromptTokenizer, texts: Sequence[str]) -> Lengths:
    counts = [len(ids) for ids in tokenizer.encode(texts)]
    return Lengths.of(np.bincount(np.array(counts, np.int64), minlength=1))


def _show(found: Mapping[str, Any], index: Index) -> None:
    console = NoWrapConsole()
    console.say(f"{found['source']}: {found['records']:,} records, {found['usable']:,} usable")
    console.say(f"fingerprint {found['fingerprint']}")
    for title, counts in (
        ("width:height", found["aspects"]),
        ("shorter side", found["sizes"]),
        ("problem", {name: count for name, count in found["problems"].items() if count}),
    ):
        if counts:
            console.show(_counts(title, counts))
    rows = {(name, "characters"): lengths for name, lengths in found["characters"].items()}
    for tokenizer, columns in found.get("tokens", {}).items():
        unit = f"tokens of {tokenizer}, in {found['sampled']:,} records"
        rows |= {(name, unit): lengths for name, lengths in columns.items()}
    if rows:
        table = Table("caption", "unit", "captions", "mean", "median", "95th percentile", "longest")
        for (name, unit), lengths in rows.items():
            mean, *others = (lengths[key] for key in ("mean", "median", "most", "longest"))
            table.add_row(name, unit, f"{lengths['captions']:,}", f"{mean:.1f}", *map(str, others))
        console.show(table)
    for problem in found["first_problems"]:
        console.say(problem["message"])
    more = sum(found["problems"].values()) - len(found["first_problems"])
    if more > 0:
        console.say(f"and {more:,} more in {index.folder / 'problems.jsonl'}")


def _counts(title: str, counts: Mapping[str, int]) -> Table:
    table = Table(title, "records")
    for name, count in counts.items():
        table.add_row(name, f"{count:,}")
    return table
