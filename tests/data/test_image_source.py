"""What every source of images offers, and a part of one."""

import numpy as np
import pytest
from lidit_jax.data.image_source import Subset


class Source:
    def __init__(self, digests):
        self._digests = digests

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return {"image": index, "caption": self.caption(index), "index": index}

    @property
    def distinct_captions(self):
        return 5

    def caption(self, index):
        return f"number {index}"

    def digests(self):
        return self._digests

    def __repr__(self):
        return "Source()"


@pytest.fixture
def named():
    """A source whose records have names."""
    return Source(np.arange(10, dtype=np.uint64).reshape(5, 2))


def test_a_subset_numbers_its_records_from_0(named):
    subset = Subset(named, range(0, 5, 2))
    assert len(subset) == 3
    assert subset[1] == {"image": 2, "caption": "number 2", "index": 1}
    assert subset.distinct_captions == 3
    assert subset.caption(2) == "number 4"
    np.testing.assert_array_equal(subset.digests(), [[0, 1], [4, 5], [8, 9]])
    assert Subset(Source(None), range(2)).digests() is None


def test_data_that_version_0_1_has_prepared_is_found_again(named):
    """Its cache has files named by this text: another would encode a folder anew."""
    assert repr(Subset(named, range(0, 5, 2))) == "Part(Source(), range(0, 5, 2))"
