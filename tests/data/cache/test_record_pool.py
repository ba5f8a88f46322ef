"""Readers ahead: in order, with few jobs at a time, and told when one was killed."""

import os
import signal

import pytest

from lidit_jax.data.cache.record_pool import RecordPool
from lidit_jax.errors import LiditError
from tests.data.cache.stand_ins import opened

SOURCES = opened().sources


def doubled(sources, job):
    assert len(sources) == 2
    if job == 5 and os.environ.get("LIDIT_TEST_KILL"):
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "mistake":
        raise LiditError("mend it")
    return 2 * job


@pytest.mark.parametrize("workers", [0, 1])
def test_results_come_in_order_and_a_pool_is_used_again(workers):
    with RecordPool(SOURCES, workers) as pool:
        for count in (100, 0, 3):
            assert [*pool.map(doubled, range(count))] == [2 * job for job in range(count)]
        with pytest.raises(LiditError, match="mend it"):
            list(pool.map(doubled, [1, "mistake", 2]))
        assert [*pool.map(doubled, [4])] == [8]


def test_jobs_are_drawn_as_they_are_needed():
    drawn = []
    with RecordPool(SOURCES, 0) as pool:
        results = pool.map(doubled, (drawn.append(job) or job for job in range(1000)))
        for _ in range(10):
            next(results)
        assert len(drawn) < 100
        results.close()


def test_a_killed_process_is_told(monkeypatch):
    monkeypatch.setenv("LIDIT_TEST_KILL", "1")
    with (
        RecordPool(SOURCES, 1) as pool,
        pytest.raises(LiditError, match=r"ended, .* lower config\.data\.workers=1; what is cached"),
    ):
        list(pool.map(doubled, range(10)))
