"""Reading ahead, by threads and by processes; `test_reader_processes.py` has their accidents."""

import itertools

import grain.python as grain
import numpy as np
import pytest

from lidit_jax.data.read_ahead import read_ahead


class Reader:
    """Batches of numbers, with a text."""

    def __call__(self, number):
        return {"image": np.full((2, 100_000), number % 256, np.uint8), "text": [f"{number}", "ü"]}


@pytest.mark.parametrize("workers", [0, 2])
def test_elements_come_in_order_with_their_texts_and_stay_as_they_are(workers):
    dataset = grain.MapDataset.range(2**62).map(Reader())[2**61 :]
    found = read_ahead(dataset, workers)
    kept = list(itertools.islice(found, 12))
    found.close()
    for place, element in enumerate(kept):
        number = 2**61 + place
        assert element["text"] == [f"{number}", "ü"]
        assert (element["image"] == number % 256).all()
