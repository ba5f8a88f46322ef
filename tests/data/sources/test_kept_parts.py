"""What processes keep of the files that they read last."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lidit_jax.data.sources.kept_parts import KeptParts


def test_the_last_ones_are_kept_up_to_the_size():
    kept, loaded = KeptParts(10, len), []

    def get(name, size):
        return kept.get(name, lambda: loaded.append(name) or "x" * size)

    for name in "abaca":
        get(name, 4)
    assert loaded == ["a", "b", "c"]
    get("b", 4)
    assert loaded == ["a", "b", "c", "b"], "it was not used for longest"
    assert len(get("large", 99)) == 99
    get("large", 99)
    get("a", 4)
    assert loaded[4:] == ["large", "a"], "the last one is kept whatever its size"


def test_threads_wait_for_one_load():
    kept, loads, begun = KeptParts(10, len), [], threading.Barrier(4)

    def get(_):
        begun.wait()
        return kept.get("a", lambda: loads.append(1) or "part")

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(get, range(4))) == ["part"] * 4
    assert loads == [1]


def test_what_cannot_be_loaded_is_tried_again():
    kept = KeptParts(10, len)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            kept.get("a", lambda: 1 // 0)
    assert kept.get("a", lambda: "part") == "part"


def test_another_process_begins_with_none(monkeypatch):
    kept = KeptParts(10, len)
    kept.get("a", lambda: "mine")
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert kept.get("a", lambda: "its own") == "its own"
