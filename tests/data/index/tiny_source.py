"""A source of a few pictures in memory, in the place of a format."""

import functools
import io
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from lidit_jax.data.sources.protocol import Place, Record, ScannedRecord, Shard
from lidit_jax.errors import LiditError


@functools.cache
def picture(width: int, height: int, color: str = "red", kind: str = "png") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), color).save(stream, kind)
    return stream.getvalue()


@dataclass(frozen=True)
class Tiny:
    """Some records in each shard; a shard whose name begins with "broken" ends early."""

    records: dict[str, list[ScannedRecord]]
    versions: dict[str, str] = field(default_factory=dict)
    scanned: str = ""
    """A file that gets a line for each scan."""
    seconds: float = 0.0
    """That each scan takes."""

    def shards(self):
        return [Shard(name, self.versions.get(name, "1")) for name in sorted(self.records)]

    def scan(self, shard):
        if self.scanned:
            with open(self.scanned, "a") as lines:
                lines.write(f"{shard.name} {os.getpid()}\n")
        time.sleep(self.seconds)
        yield from self.records[shard.name]
        if shard.name.startswith("broken"):
            raise LiditError(f"{shard.name} is cut off: copy it again")

    def read(self, place: Place) -> Record:
        record = self.records[place.shard][place.offset]
        return Record(record.open_image().read(), record.captions)

    def __repr__(self) -> str:
        return "tiny:memory"


def record(number: int, content: bytes, caption: str | None = "a", **facts) -> ScannedRecord:
    """A record with a key of its own."""
    return ScannedRecord(
        f"größe/{number}",
        facts.pop("offset", number),
        len(content),
        functools.partial(io.BytesIO, content),
        {} if caption is None else {"caption": caption},
        **facts,
    )


def tiny(shards: int = 3, each: int = 2, **options) -> Tiny:
    """Shards of some pictures, all of other sizes."""
    return Tiny(
        {
            f"shard-{shard}": [
                record(
                    shard * each + row,
                    picture(8 + row, 8 + shard),
                    caption="red " * (1 + row),
                    offset=row,
                )
                for row in range(each)
            ]
            for shard in range(shards)
        },
        **options,
    )


def files(folder: Path) -> dict[str, bytes]:
    """What an index consists of."""
    columns = [*folder.glob("columns-*/*"), folder / "index.json"]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in columns}
