"""Batches: a pure function of seed and position, whatever the number of processes."""

import itertools

import jax
import numpy as np
import pytest
from lidit_jax.data.pipeline import LatentRecords, evaluation_batches, training_batches
from lidit_jax.data.text_features import TextFeatures


class Numbers:
    """Records that hold their own number."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        assert 0 <= index < self.count
        return {"index": np.int32(index)}


def indices(iterator, batches):
    return [batch["index"].tolist() for batch in itertools.islice(iterator, batches)]


def train(records=20, batch_size=6, seed=0, position=0, batches=10):
    return indices(training_batches(Numbers(records), batch_size, seed, position), batches)


def test_each_epoch_shows_every_record_once_in_an_order_of_its_own():
    order = [index for batch in train() for index in batch]
    epochs = order[:20], order[20:40], order[40:60]
    for epoch in epochs:
        assert sorted(epoch) == list(range(20))
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != list(range(20)), "shuffled"


def test_the_seed_decides_the_order():
    assert train() == train()
    assert train(seed=1) != train()


@pytest.mark.parametrize("position", [1, 3, 7])
def test_going_on_at_a_position_gives_the_same_batches(position):
    """Across the end of an epoch, too: 20 records are no multiple of 6."""
    assert train(position=position, batches=3) == train()[position : position + 3]


def test_processes_share_each_batch(monkeypatch):
    whole = train()
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    parts = []
    for process in range(2):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        parts.append(train())
    for batch, first, second in zip(whole, *parts, strict=True):
        assert len(first) == len(second) == 3
        assert sorted(first + second) == sorted(batch)


def test_a_batch_may_be_larger_than_the_data():
    assert [len(batch) for batch in train(records=5, batch_size=8, batches=2)] == [8, 8]


@pytest.mark.parametrize(("records", "batches"), [(12, 2), (13, 3), (4, 1)])
def test_evaluation_shows_every_record_once_and_marks_what_fills_up(records, batches):
    found = list(evaluation_batches(Numbers(records), 6))
    assert [len(batch["index"]) for batch in found] == [6] * batches
    index, valid = (np.concatenate([b[name] for b in found]) for name in ("index", "valid"))
    assert index[valid].tolist() == list(range(records))


def test_processes_share_an_evaluation(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    seen = []
    for process in range(2):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        for batch in evaluation_batches(Numbers(13), 6):
            assert len(batch["index"]) == 3
            seen += batch["index"][batch["valid"]].tolist()
    assert sorted(seen) == list(range(13))


def test_latents_are_normalized_and_meet_their_captions():
    tokens = np.arange(10, dtype=np.float32).reshape(5, 2)
    stream = TextFeatures(
        tokens, np.array([0, 2, 5]), np.full((1, 2), 9.0), prefix_length=1, length=8, truncated=0
    )
    latents = np.stack([np.full((2, 2, 3), value, np.float16) for value in (1, 3)])
    records = LatentRecords(latents, np.ones(3), np.full(3, 2.0), [1, 0], [stream, stream])
    record = records[1]
    np.testing.assert_array_equal(record["latent"], np.ones((2, 2, 3), np.float32))
    assert record["index"] == 1
    assert len(records) == len(record["features"]) == len(record["masks"]) == 2
    features, mask = record["features"][0], record["masks"][0]
    np.testing.assert_array_equal(features[:4].astype(float), [[9, 9], [0, 1], [2, 3], [0, 0]])
    np.testing.assert_array_equal(mask, [True] * 3 + [False] * 5)
