"""Ctrl-C between two commands waits for the next one: nothing is started and then forgotten."""

import signal

import pytest


@pytest.fixture
def commands(repository, monkeypatch):
    """Of the launcher, which is no part of the package."""
    monkeypatch.syspath_prepend(repository / "launch")
    from launcher.commands import Commands

    return Commands()


def test_no_command_starts_after_it(commands, tmp_path):
    with commands.one_interrupt():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            commands.run("touch", str(tmp_path / "rented"))
        assert not (tmp_path / "rented").exists()
        commands.run("touch", str(tmp_path / "given back"))
        assert (tmp_path / "given back").exists()


def test_giving_back_is_finished_first(commands, tmp_path):
    def give_back() -> None:
        with commands.undisturbed():
            signal.raise_signal(signal.SIGTERM)
            commands.run("touch", str(tmp_path / "given back"))

    with commands.one_interrupt(), pytest.raises(KeyboardInterrupt):
        give_back()
    assert (tmp_path / "given back").exists()
