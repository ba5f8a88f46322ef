"""Processes that read pictures: the same batches, and nothing of them is left or in the way."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from jax._src import xla_bridge

from lidit_jax.config.data_settings import (
    AugmentationSettings,
    CaptionSettings,
    FilterSettings,
    ReadingSettings,
)
from lidit_jax.data import batches as module
from lidit_jax.data.batches import BatchReader
from lidit_jax.data.bucket_members import BucketMembers
from lidit_jax.data.order import Order
from lidit_jax.data.skipped_records import SkippedRecords
from lidit_jax.data.sources.protocol import Record
from lidit_jax.data.streamed_source import StreamedSource
from lidit_jax.errors import LiditError
from tests.data.stand_ins import Columns, Painted, picture


def batches(workers, position=0, kind=Painted, count=20):
    """Batches of 6 of a source; the list of what was skipped is never written."""
    index = Columns(count)
    source = StreamedSource(index, kind(index), CaptionSettings(), FilterSettings())
    order = Order([BucketMembers(np.zeros(count, np.uint8), 1)], 6, seed=0)
    settings = ReadingSettings(), AugmentationSettings()
    reader = BatchReader([source], order, [(8, 8)], 0, *settings)
    skipped = SkippedRecords(Path("unused"), count, 0.0)
    return module.batches(reader, position, skipped, workers)


def first(iterator, count=7):
    return list(itertools.islice(iterator, count))


def same(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for name in ("image", "records"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert one.captions == other.captions


class Witness(Painted):
    """A source that paints what it sees of its process."""

    def read(self, place):
        import jax

        facts = [
            xla_bridge.backends_are_initialized(),
            jax.config.jax_platforms == "cpu",
            os.environ["CUDA_VISIBLE_DEVICES"] == "",
        ]
        return Record(picture(tuple(map(int, facts))), {"caption": "text"})


class Damaged(Painted):
    """A source with one record that nobody can read."""

    def read(self, place):
        if place.offset == 3:
            raise ValueError("two\nlines")
        return super().read(place)


class Slow(Painted):
    """A source that takes its time."""

    def read(self, place):
        time.sleep(0.2)
        return super().read(place)


def readers():
    return [child.pid for child in multiprocessing.active_children()]


@pytest.fixture
def expected():
    return first(batches(0))


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_those_of_threads_wherever_a_run_goes_on(workers, expected):
    """Across the end of an epoch: 20 records are no multiple of 6."""
    found = batches(workers)
    same(first(found), expected)
    assert len(readers()) == workers
    found.close()
    assert readers() == []
    again = batches(workers, position=3)
    same(first(again, 4), expected[3:])
    again.close()


def test_readers_see_no_accelerator():
    found = batches(1, kind=Witness)
    initialized, cpu, hidden = next(found).image[0, 0, 0]
    found.close()
    assert not initialized
    assert cpu
    assert hidden


@pytest.mark.parametrize("workers", [0, 1])
def test_a_record_that_cannot_be_read_is_named_in_one_line(workers):
    with pytest.raises(LiditError) as refusal:
        first(batches(workers, kind=Damaged))
    assert str(refusal.value) == (
        "record key 3 of shard 0 cannot be read (ValueError: two lines): mend it, or leave it out"
    )
    assert readers() == []


def test_readers_leave_signals_to_the_process_that_trains(expected):
    found = batches(2)
    ours = first(found, 1)
    for pid in readers():
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    same(ours + first(found, 6), expected)
    found.close()


def test_a_reader_that_was_killed_is_told_in_one_line():
    found = batches(1, kind=Slow)
    next(found)
    (pid,) = readers()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(LiditError, match=r"a process that reads the training data was ended.*-9"):
        first(found, 20)
    assert readers() == []


ORPHANS = """
import os, signal
from tests.data.test_reader_processes import batches, readers
found = batches(2)
next(found)
print(*readers(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def alive(pid):
    """Whether a process runs; one that has ended and waits to be collected does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="asks Linux about processes")
def test_readers_end_with_a_process_that_was_killed():
    done = subprocess.run([sys.executable, "-c", ORPHANS], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = [int(pid) for pid in done.stdout.split()]
    assert len(left) == 2
    end = time.monotonic() + 60
    while any(map(alive, left)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(alive, left))
