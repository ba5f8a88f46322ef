"""One record: its picture in a shape, its caption, or why it cannot be used."""

import pickle

import numpy as np
import pytest

from lidit_jax.config.data_settings import ReadingSettings
from lidit_jax.data.record_reading import UnusableRecordError, read_record
from lidit_jax.errors import LiditError
from tests.data.stand_ins import NOISE, Columns, Painted, broken_off, picture


def read(**changes):
    index = Columns(9)
    return read_record(Painted(index, **changes), index.place(3))


def test_a_picture_is_fitted_and_a_caption_cleaned():
    record = read()
    fitted = record.fitted((24, 16), ReadingSettings())
    np.testing.assert_array_equal(fitted.image, np.broadcast_to([3, 0, 7], (24, 16, 3)))
    assert record.caption("caption") == "picture 3"


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (LiditError("record 3 is gone: index again"), "missing", "record 3 is gone: index again"),
        (OSError(5, "I/O error"), "missing", "record key 3 of shard 0 cannot be read (I/O error)"),
    ],
)
def test_a_missing_record(error, kind, message):
    with pytest.raises(UnusableRecordError) as found:
        read(images={3: error})
    assert (found.value.kind, str(found.value)) == (kind, message)
    again = pickle.loads(pickle.dumps(found.value))
    assert (again.kind, str(again)) == (kind, message)
    assert str(again.refusal()).endswith("set config.data.reading.missing to 'skip')")


def test_other_exceptions_may_not_be_skipped():
    with pytest.raises(LiditError, match=r"record key 3 .*\(ZeroDivisionError: x y\): mend it"):
        read(images={3: ZeroDivisionError("x\n y")})


def test_damaged_and_large_pictures():
    with pytest.raises(UnusableRecordError) as found:
        read(images={3: b"text"}).fitted((8, 8), ReadingSettings())
    assert found.value.kind == "damaged"
    with pytest.raises(UnusableRecordError) as found:
        read(images={3: picture((1, 2, 3), 64, 64)}).fitted(
            (8, 8), ReadingSettings(most_megapixels=0.004)
        )
    assert found.value.kind == "too_large"


def test_a_picture_that_breaks_off_may_be_repaired():
    record = read(images={3: broken_off()})
    with pytest.raises(UnusableRecordError, match=r"key 3 .* is not a readable image"):
        record.fitted((64, 64), ReadingSettings())
    fitted = record.fitted((64, 64), ReadingSettings(damaged="repair"))
    np.testing.assert_array_equal(fitted.image[:16], NOISE[:16])
    told = "record key 3 of shard 0 is damaged, and was repaired (image file is truncated"
    assert record.repaired(fitted).startswith(told)
    intact = read().fitted((64, 64), ReadingSettings(damaged="repair"))
    assert read().repaired(intact) == ""


@pytest.mark.parametrize("caption", ["", " \n", "half \ud800"])
def test_bad_captions(caption):
    with pytest.raises(UnusableRecordError, match="record key 3 of shard 0") as found:
        read(captions={3: {"caption": caption}}).caption("caption")
    assert found.value.kind == "bad_caption"
