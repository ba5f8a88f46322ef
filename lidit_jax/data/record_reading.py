"""Reading of single records: image fitted to a shape, cleaned caption, or why it is unusable."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import NamedTuple

from lidit_jax.config.data_settings import ReadingSettings
from lidit_jax.config.prompt_text import prompt_text
from lidit_jax.data.sources.image_chunks import is_chunk
from lidit_jax.data.sources.protocol import CaptionSource, Place, Record, RecordSource
from lidit_jax.errors import LiditError
from lidit_jax.io.image_crops import CENTER
from lidit_jax.io.image_files import Fitted, UnreadableImageError, read_fitted


class UnusableRecordError(Exception):
    """Record that cannot be used, with the field of `ReadingSettings` that applies."""

    def __init__(self, kind: str, message: str):
        """Set the reason.

        Args:
          kind: "missing", "damaged", "too_large" or "bad_caption".
          message: the reason, with the name of the record.
        """
        super().__init__(kind, message)
        self.kind, self.message = kind, message

    def __str__(self) -> str:
        return self.message

    def refusal(self) -> LiditError:
        """Return the error of a run that may not skip such records."""
        return LiditError(
            f"{self} (to go on without such records, set config.data.reading.{self.kind} to 'skip')"
        )


class ReadRecord(NamedTuple):
    """Content of a record, and its name in messages."""

    named: str
    content: Record

    def fitted(
        self,
        shape: tuple[int, int],
        reading: ReadingSettings,
        crop: tuple[float, float] = CENTER,
    ) -> Fitted:
        """Decode the image to a shape.

        Args:
          shape: height and width in pixels.
          reading: limit of the image's size, and whether a damaged one is repaired.
          crop: position of the crop down and to the right, from 0 to 1.

        Raises:
          UnusableRecordError: when it cannot be decoded, or is too large.
        """
        try:
            return read_fitted(
                io.BytesIO(self.content.image),
                shape,
                crop,
                named=self.named,
                most_megapixels=reading.most_megapixels,
                repair=reading.damaged == "repair",
            )
        except UnreadableImageError as error:
            kind = "too_large" if error.too_large else "damaged"
            raise UnusableRecordError(kind, str(error)) from error

    def repaired(self, fitted: Fitted) -> str:
        """Describe the repair of the image, a result of `fitted`; "" for an intact one."""
        return fitted.damage and f"{self.named} is damaged, and was repaired ({fitted.damage})"

    def caption(self, column: str) -> str:
        """Return the cleaned caption of a column.

        Raises:
          UnusableRecordError: when it is damaged or empty.
        """
        try:
            cleaned = prompt_text(f"{self.named}: {column}", self.content.captions.get(column, ""))
        except LiditError as error:
            raise UnusableRecordError("bad_caption", str(error)) from error
        if not cleaned:
            raise UnusableRecordError(
                "bad_caption", f"{self.named} has nothing in its column {column!r}"
            )
        return cleaned


def read_record(records: RecordSource, place: Place) -> ReadRecord:
    """Read a record of a source.

    Raises:
      UnusableRecordError: when it is no longer there, or cannot be read.
      LiditError: for any other exception of the source, which may not be skipped.
    """
    return _read(records, records.read, place)


def read_captions(records: RecordSource, place: Place) -> ReadRecord:
    """Read the captions of a record; its image is empty where the source can leave it out.

    Raises:
      UnusableRecordError: see `read_record`.
      LiditError: see `read_record`.
    """
    if not isinstance(records, CaptionSource):
        return read_record(records, place)
    return _read(records, lambda place: Record(b"", records.read_captions(place)), place)


def _read(records: RecordSource, read: Callable[[Place], Record], place: Place) -> ReadRecord:
    named = f"record {place.key} of {records if is_chunk(place.shard) else place.shard}"
    try:
        return ReadRecord(named, read(place))
    except LiditError as error:
        raise UnusableRecordError("missing", str(error)) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UnusableRecordError("missing", f"{named} cannot be read ({reason})") from error
    except Exception as error:
        text = " ".join(str(error).split())
        raise LiditError(
            f"{named} cannot be read ({type(error).__name__}: {text}): mend it, or leave it out"
        ) from error
