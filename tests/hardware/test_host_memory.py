"""The memory of the host, and of a container that gets less."""

from pathlib import Path

from lidit_jax.hardware.host_memory import host_memory


def test_a_container_has_what_its_limit_leaves(monkeypatch):
    monkeypatch.setattr(Path, "is_file", lambda path: path.name == "memory.max")
    for text, expected in (("1048576\n", 2**20), ("max\n", None), (f"{2**70}\n", None)):
        monkeypatch.setattr(Path, "read_text", lambda path, text=text: text)
        whole = host_memory()
        assert whole == expected if expected else whole > 2**20
