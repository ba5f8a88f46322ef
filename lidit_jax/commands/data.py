"""`lidit data`: indexes of captioned images, their statistics, and conversion to ArrayRecord."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lidit_jax.commands.arguments import add_command, non_negative_int, positive_int
from lidit_jax.io.output import atomic_file, writable_file, writable_folder
from lidit_jax.io.paths import to_path

if TYPE_CHECKING:
    from lidit_jax.data.index.build import Work

_EXAMPLES = """\
  lidit data index webdataset:gs://bucket/photos --out=gs://bucket/photos-index
  lidit data inspect gs://bucket/photos-index --out=photos.png
  lidit data convert folder:my-images my-records
"""

_INDEX_EXAMPLES = """\
  lidit data index folder:my-images --out=my-index
  lidit data index webdataset:gs://bucket/photos --out=gs://bucket/photos-index --processes=32
  lidit data index parquet:photos --out=photos-index --near-duplicates
  lidit data index tfds:coco_captions --out=gs://bucket/coco --beam -- --runner=DataflowRunner

Several hosts share the work if each runs the same command. After an interruption, or when the
source has changed, the same command scans only what is missing or new. All broken shards are
listed: repair or remove them, and run it again.
"""

_INSPECT_EXAMPLES = """\
  lidit data inspect photos-index --out=photos.png
  lidit data inspect photos-index --tokenizer=smollm2 --json=photos.json
"""


_CONVERT_EXAMPLES = """\
  lidit data convert folder:my-images my-records
  lidit data convert photos-index gs://bucket/photos-records --processes=32

Without an index of the source, one is built in OUT/index-of-source. The index of the shards is
OUT/index. Unusable records are skipped. As with lidit data index, several hosts share the work, and
an interrupted conversion is continued by the same command.
"""


def add_parser(subparsers: Any) -> None:
    """Add `lidit data` and its subcommands."""
    parser = add_command(
        subparsers, "data", "index, inspect and convert captioned images", _EXAMPLES, None
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", title="actions", required=True)
    _add_index(actions)
    _add_inspect(actions)
    _add_convert(actions)


def _add_index(actions: Any) -> None:
    parser = add_command(
        actions, "index", "scan a source once and store what was found", _INDEX_EXAMPLES, run_index
    )
    parser.add_argument("source", metavar="SOURCE", help=_SOURCE_HELP)
    parser.add_argument(
        "--out", required=True, type=to_path, metavar="INDEX", help="folder for the index"
    )
    parser.add_argument(
        "--near-duplicates",
        action="store_true",
        help="decode all images for perceptual hashes, to find those that look alike",
    )
    _add_work(parser)
    _add_json(parser, "write the statistics as JSON")


def _add_inspect(actions: Any) -> None:
    parser = add_command(
        actions, "inspect", "show statistics of an index", _INSPECT_EXAMPLES, run_inspect
    )
    parser.add_argument("index", type=to_path, metavar="INDEX", help="written by lidit data index")
    parser.add_argument(
        "--out", type=Path, metavar="PAGE.png", help="write sample images with captions"
    )
    parser.add_argument(
        "--images",
        type=positive_int,
        default=24,
        metavar="N",
        help="images on that page (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=non_negative_int, default=0, metavar="K", help="seed of the samples"
    )
    parser.add_argument(
        "--tokenizer",
        action="append",
        default=[],
        metavar="NAME|PATH",
        dest="tokenizers",
        help="show caption lengths in this encoder's tokens, for sampled records; repeatable",
    )
    parser.add_argument(
        "--sample",
        type=positive_int,
        default=1000,
        metavar="N",
        help="records sampled for --tokenizer (default: %(default)s)",
    )
    _add_json(parser, "write all figures as JSON")


def _add_convert(actions: Any) -> None:
    parser = add_command(
        actions,
        "convert",
        "write any source as ArrayRecord, with an index",
        _CONVERT_EXAMPLES,
        run_convert,
    )
    parser.add_argument(
        "source", metavar="SOURCE|INDEX", help=f"{_SOURCE_HELP}; or the folder of an index"
    )
    parser.add_argument("out", type=to_path, metavar="OUT", help="folder for the shards")
    parser.add_argument(
        "--records-per-shard",
        type=positive_int,
        default=10_000,
        metavar="N",
        help="largest number of records per shard (default: %(default)s)",
    )
    _add_work(parser)


_SOURCE_HELP = "FORMAT:PATH, such as folder:my-images or webdataset:gs://bucket/photos"


def _add_work(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--processes", type=positive_int, metavar="N", help="on this host (default: one per core)"
    )
    parser.add_argument(
        "--beam",
        action="store_true",
        help="run as an Apache Beam pipeline; Beam's options follow --",
    )
    parser.set_defaults(rest=[])


def _add_json(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help=text)


def run_index(options: argparse.Namespace) -> int:
    """Build an index and print its statistics."""
    from lidit_jax.data.index.build import build_index
    from lidit_jax.data.index.statistics import statistics
    from lidit_jax.data.sources import registry
    from lidit_jax.io.progress import slow_progress_bar

    work = _work(options)
    with writable_file(options.json, "--json"), writable_folder(options.out, "--out"):
        source = registry.open_records(options.source)
        with slow_progress_bar("index") as progress:
            index = build_index(
                source,
                options.out,
                near_duplicates=options.near_duplicates,
                progress=progress,
                work=work,
            )
        found = statistics(index)
    print(
        f"{options.out}: {found['records']:,} records in {len(index.shards):,} shards, "
        f"{found['usable']:,} of them usable"
    )
    if found["usable"] < found["records"]:
        print(f"problems: lidit data inspect {options.out}")
    # Only formats in which files may belong to no record have this.
    if left_out := getattr(source, "left_out", str)():
        print(f"left out: {left_out}")
    _write_json(options.json, found)
    return 0


def run_convert(options: argparse.Namespace) -> int:
    """Write ArrayRecord shards and their index."""
    from lidit_jax.data.conversion import convert
    from lidit_jax.data.index.build import build_index
    from lidit_jax.data.index.open import is_index
    from lidit_jax.data.sources import registry
    from lidit_jax.io.progress import slow_progress_bar

    work = _work(options)
    with writable_folder(options.out, "OUT"):
        if not _names_format(options.source) and is_index(options.source):
            folder = to_path(options.source)
        else:
            source = registry.open_records(options.source)
            folder = options.out / "index-of-source"
            folder.mkdir(parents=True, exist_ok=True)
            with slow_progress_bar("index") as progress:
                build_index(source, folder, progress=progress, work=work)
        with slow_progress_bar("convert") as progress:
            index = convert(
                folder,
                options.out,
                work,
                records_per_shard=options.records_per_shard,
                progress=progress,
            )
    print(f"{options.out}: {len(index):,} records in {len(index.shards):,} shards")
    return 0


def _names_format(source: str) -> bool:
    from lidit_jax.data.sources.registry import FORMATS

    name, colon, path = source.partition(":")
    return bool(colon) and name in FORMATS and not path.startswith("//")


def run_inspect(options: argparse.Namespace) -> int:
    """Print counts and problems, and write a contact sheet."""
    from lidit_jax.commands.data_inspect import inspect

    with (
        writable_file(options.json, "--json"),
        writable_file(options.out, "--out", ".png"),
    ):
        _write_json(options.json, inspect(options))
    return 0


def _work(options: argparse.Namespace) -> Work:
    """Return the writer of files: a Beam pipeline, or processes on this host."""
    import os
    from functools import partial

    from lidit_jax.data.beam_work import BeamWork
    from lidit_jax.data.shared_work import share_work
    from lidit_jax.errors import LiditError

    if options.beam:
        if options.processes:
            raise LiditError("--beam has its own workers: leave out --processes")
        return BeamWork(options.rest)
    if options.rest:
        raise LiditError(f"options after -- ({options.rest[0]}) are for Beam: add --beam")
    return partial(share_work, processes=options.processes or os.cpu_count() or 1)


def _write_json(file: Path | None, content: dict[str, Any]) -> None:
    if file is not None:
        with atomic_file(file) as stream:
            stream.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
