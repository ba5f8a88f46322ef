"""Parquet files as written by `datasets` and others, on disks, in buckets and on the hub."""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from lidit_jax.data.folder_listing import summary
from lidit_jax.data.sources.columns import Columns
from lidit_jax.data.sources.kept_parts import KeptParts
from lidit_jax.data.sources.parquet_columns import TableColumns, table_columns
from lidit_jax.data.sources.protocol import Place, Record, ScannedRecord, Shard
from lidit_jax.data.sources.shard_names import NamedFiles
from lidit_jax.errors import LiditError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

SUFFIX = ".parquet"
KEPT_BYTES = 2**29
"""Cache size for row groups in each process; a larger row group is cached alone."""
LARGEST_GROUP = 2**30
"""Largest row group in bytes: all of it is read for any record in it."""
_KEPT_FOOTERS = 2**28
_ROWS = 32
"""Rows that a scan reads at a time."""
_SPLIT = re.compile(r"(train|training|val|valid|validation|dev|test)(?=[-_.\d]|$)")
_ARROW = ("dataset_info.json", "dataset_dict.json")


class Parquet:
    """Rows of Parquet files; each file is a shard.

    The image is a struct of `bytes` and `path`, as `datasets` writes it, or bytes; strings and
    lists of strings are captions, numbers are numbers. Where there are no strings, `datasets`'
    class labels give "a photo of {class}".
    """

    def __init__(self, path: str):
        """Set the path; no file is read yet.

        Args:
          path: a file, a folder, or a pattern such as `photos/train-*.parquet`, of this machine,
            of a bucket, or of the hub as `hf://datasets/USER/NAME[@REVISION][/PATH]`.

        Raises:
          LiditError: when pyarrow is not installed, or the path can be none.
        """
        if importlib.util.find_spec("pyarrow") is None:
            raise LiditError(f"parquet:{path} needs pyarrow: pip install 'lidit-jax[parquet]'")
        self._path = path
        self._named = NamedFiles(path, SUFFIX)
        self._footers = KeptParts[_Footer](_KEPT_FOOTERS, lambda f: f.metadata.serialized_size)
        self._groups = KeptParts["pa.Table"](KEPT_BYTES, lambda table: table.nbytes)

    def __reduce__(self) -> tuple[type[Parquet], tuple[str]]:
        return Parquet, (self._path,)

    def __repr__(self) -> str:
        return f"parquet:{self._path}"

    def shards(self) -> Sequence[Shard]:
        """Return one shard per file.

        Raises:
          LiditError: when there is none, or the folder holds several splits, or what
            `save_to_disk` writes.
        """
        try:
            found = self._named.find()
        except LiditError as error:
            raise self._explained(error) from error
        if not self._named.chosen:
            splits = sorted({split for name in found if (split := _split(name))})
            if len(splits) > 1:
                example = self._named.files.named(f"**/{splits[-1]}*{SUFFIX}")
                raise LiditError(
                    f"{self._path} holds the splits {', '.join(splits)}: name the files of one: "
                    f"'parquet:{example}'"
                )
        return [Shard(name, version) for name, version in found.items()]

    def scan(self, shard: Shard) -> Iterator[ScannedRecord]:
        """Yield the rows of a file, in order."""
        footer, row_of_file = self._footer(shard.name), 0
        for group in range(footer.metadata.num_row_groups):
            row_of_group = 0
            for batch in self._batches(shard.name, footer, group):
                for row in range(batch.num_rows):
                    key = f"{shard.name}/{row_of_file}"
                    found = _row(batch, row, footer.columns, key)
                    yield ScannedRecord(
                        key,
                        group,
                        row_of_group,
                        partial(_opened, found.image, found.problem),
                        found.values.captions,
                        found.values.numbers,
                        found.problem,
                    )
                    row_of_group, row_of_file = row_of_group + 1, row_of_file + 1

    def read(self, place: Place) -> Record:
        """Read one row. Raises `LiditError` when it is no longer there or has no image."""
        known = self._footer(place.shard).columns
        found = _row(self._group(place, known.names), place.length, known, place.key)
        if found.problem:
            raise LiditError(found.problem)
        return Record(found.image, found.values.captions)

    def read_captions(self, place: Place) -> Mapping[str, str]:
        """Read the captions of one row. Raises `LiditError` when it is no longer there."""
        known = self._footer(place.shard).columns
        found, problem = _values(
            self._group(place, known.names[1:]), place.length, known, place.key
        )
        if problem:
            raise LiditError(problem)
        return found.captions

    def left_out(self) -> str:
        """Return counts by kind and examples of the folder's other files; else ""."""
        return summary(self._named.others())

    def _group(self, place: Place, columns: Sequence[str]) -> pa.Table:
        """Return columns of the row group of an indexed row, which are kept for later rows."""
        footer = self._footer(place.shard)
        groups = footer.metadata.num_row_groups
        if place.offset >= groups or place.length >= footer.rows(place.offset):
            named = self._named.files.named(place.shard)
            raise LiditError(f"{named} no longer holds {place.key}: index it again")
        return self._groups.get(
            (place.shard, place.offset, *columns),
            lambda: self._load(place.shard, footer, place.offset, columns),
        )

    def _footer(self, name: str) -> _Footer:
        return self._footers.get(name, lambda: self._read_footer(name))

    def _read_footer(self, name: str) -> _Footer:
        named = self._named.files.named(name)
        with _explain_errors(named), self._named.files.stream(name) as stream:
            file = _open(stream)
            columns = table_columns(file.schema_arrow, named)
            footer = _Footer(file.metadata, columns)
        for group in range(footer.metadata.num_row_groups):
            size = footer.bytes(group)
            if size > LARGEST_GROUP:
                raise LiditError(
                    f"{named} has a row group of {size / 2**30:.1f} GB, all of which is read for "
                    f"any record in it: write it anew with row groups of 100 MB, by "
                    "datasets' Dataset.to_parquet or pyarrow's row_group_size"
                )
        return footer

    def _batches(self, name: str, footer: _Footer, group: int) -> Iterator[pa.RecordBatch]:
        with (
            _explain_errors(self._named.files.named(name)),
            self._named.files.stream(name) as stream,
        ):
            yield from _open(stream, footer.metadata, buffer_size=2**20).iter_batches(
                _ROWS, row_groups=[group], columns=footer.columns.names, use_threads=False
            )

    def _load(self, name: str, footer: _Footer, group: int, columns: Sequence[str]) -> pa.Table:
        with (
            _explain_errors(self._named.files.named(name)),
            self._named.files.stream(name) as stream,
        ):
            return _open(stream, footer.metadata).read_row_group(
                group, columns=[*columns], use_threads=False
            )

    def _explained(self, error: LiditError) -> LiditError:
        """Return an error with details about a folder without Parquet, or about the hub."""
        if self._path.startswith("hf://"):
            return LiditError(
                f"{error}; run `hf auth login` if it is private or gated; a dataset of other files "
                "is read as hf://datasets/USER/NAME@~parquet where the hub has converted it"
            )
        inside = self._named.files.inside("")
        if any(name in inside for name in _ARROW) or self._path.endswith(".arrow"):
            split = '["train"]' if "dataset_dict.json" in inside else ""
            return LiditError(
                f"{self._path} is what datasets' save_to_disk writes: write Parquet from it: "
                f"datasets.load_from_disk({self._path!r}){split}.to_parquet('photos.parquet')"
            )
        return error


class _Footer(NamedTuple):
    metadata: pq.FileMetaData
    columns: TableColumns

    def rows(self, group: int) -> int:
        return self.metadata.row_group(group).num_rows

    def bytes(self, group: int) -> int:
        """Bytes of the columns in use."""
        described = self.metadata.row_group(group)
        chunks = map(described.column, range(described.num_columns))
        wanted = set(self.columns.names)
        return sum(
            chunk.total_uncompressed_size
            for chunk in chunks
            if chunk.path_in_schema in wanted or chunk.path_in_schema.split(".")[0] in wanted
        )


class _Row(NamedTuple):
    image: bytes
    values: Columns
    problem: str


def _row(table: pa.Table | pa.RecordBatch, row: int, known: TableColumns, key: str) -> _Row:
    import pyarrow as pa

    image = b""
    values, problem = _values(table, row, known, key)
    cell = table.column(known.image)[row]
    path = None
    if isinstance(cell, pa.StructScalar) and cell.is_valid:
        if cell.type.get_field_index("path") >= 0:
            path = cell["path"].as_py()
        cell = cell["bytes"]
    content = cell.as_py()
    if content:
        image = content
    elif path:
        problem = (
            f"{key} has only the path {path!r}, no image: embed the images before to_parquet: "
            "dataset.with_format('arrow').map(datasets.table.embed_table_storage, batched=True)"
        )
    else:
        problem = f"{key} has no image: remove the row"
    return _Row(image, values, problem)


def _values(
    table: pa.Table | pa.RecordBatch, row: int, known: TableColumns, key: str
) -> tuple[Columns, str]:
    """Return the captions and numbers of a row, and why it has none."""
    try:
        cells = {name: table.column(name)[row].as_py() for name in known.names[1:]}
        return known.values(cells, key), ""
    except UnicodeDecodeError:
        return Columns({}, {}), f"{key}: a text is not UTF-8: write it anew"
    except LiditError as error:
        return Columns({}, {}), str(error)


def _opened(image: bytes, problem: str) -> BinaryIO:
    if not image:
        raise LiditError(problem)
    return io.BytesIO(image)


def _open(stream: BinaryIO, metadata: Any = None, buffer_size: int = 0) -> pq.ParquetFile:
    import pyarrow.parquet as pq

    return pq.ParquetFile(
        stream, metadata=metadata, buffer_size=buffer_size, pre_buffer=False, memory_map=False
    )


@contextmanager
def _explain_errors(named: str) -> Iterator[None]:
    """Convert exceptions of pyarrow and of store clients to one-line errors."""
    import pyarrow as pa

    try:
        yield
    except LiditError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0][:200]
        # pyarrow has no exception class for damaged pages.
        if isinstance(error, pa.ArrowException) or type(error) is OSError:
            raise LiditError(
                f"{named} is no Parquet file, or is cut off or damaged: copy or write it again "
                f"({reason})"
            ) from error
        raise LiditError(f"{named} cannot be read: try again ({reason})") from error


def _split(name: str) -> str:
    """Return the split in a file's name or folder: "train" for "train-00000.parquet"."""
    for part in reversed(name.removesuffix(SUFFIX).split("/")):
        if match := _SPLIT.match(part):
            return match[1]
    return ""
