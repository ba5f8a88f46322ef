"""Files that several launches write together: each once, and none is lost with its launch."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from lidit_jax.data.shared_work import share_work
from lidit_jax.errors import LiditError
from lidit_jax.io.output import atomic_file
from lidit_jax.io.progress import Progress


def write(task, file):
    """Writes the task, or does what it says."""
    if task == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "full":
        raise OSError(28, "No space left on device")
    if task.startswith("mistake"):
        raise LiditError(f"{task}: mend it")
    with atomic_file(file) as stream:
        stream.write(task.encode())


class Heard(Progress):
    def __init__(self):
        self.reports, self.notes = [], []

    def __call__(self, done, total):
        self.reports.append((done, total))

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def folders(tmp_path):
    (tmp_path / "files").mkdir()
    return tmp_path / "files", tmp_path / "claims"


def share(folders, tasks, **options):
    share_work(folders[0], tasks, write, folders[1], **options)


@pytest.mark.parametrize("processes", [1, 2])
def test_every_file_is_written_and_no_claim_is_left(folders, processes):
    heard = Heard()
    tasks = {f"{n}.txt": f"text {n}" for n in range(5)}
    share(folders, tasks, processes=processes, progress=heard)
    assert {file.name: file.read_text() for file in folders[0].iterdir()} == tasks
    assert heard.reports[0] == (0, 5)
    assert heard.reports[-1] == (5, 5)
    assert [*folders[1].iterdir()] == []


def test_what_is_there_is_not_written_again(folders):
    (folders[0] / "a").write_text("old")
    share(folders, {"a": "new", "b": "new"})
    assert (folders[0] / "a").read_text() == "old"
    assert (folders[0] / "b").read_text() == "new"


def test_mistakes_are_told_together_after_all_others_are_done(folders):
    with pytest.raises(LiditError) as error:
        share(folders, {"a": "mistake 1", "b": "fine", "c": "mistake 2", "d": "full"})
    for part in ("3 problems", "mistake 1: mend", "mistake 2: mend", "cannot write", "No space"):
        assert part in str(error.value)
    assert (folders[0] / "b").exists()
    assert [*folders[1].iterdir()] == []


def test_a_process_that_is_killed_is_told(folders):
    with pytest.raises(LiditError, match=r"killed, perhaps for want of memory: .* --processes"):
        share(folders, {"a": "die", "b": "fine"}, processes=2)


@pytest.fixture
def other(folders):
    """Another launch, at work on the file "a"; gives its sign of life."""
    folders[1].mkdir()
    (folders[1] / "a.claim").write_text("other")
    sign = folders[1] / "other.launch"
    sign.write_text("0")
    return sign


def test_what_a_dead_launch_had_claimed_is_done_by_another(folders, other):
    share(folders, {"a": "text", "b": "text"}, patience=0.5)
    assert (folders[0] / "a").exists()


def test_claims_of_a_launch_that_has_ended_are_void_at_once(folders, other):
    other.unlink()
    begin = time.monotonic()
    share(folders, {"a": "text"}, patience=1000)
    assert time.monotonic() - begin < 500


def test_a_claim_that_is_being_written_is_not_void(folders, other):
    """A file appears before its content."""
    (folders[1] / "a.claim").write_text("")
    begin = time.monotonic()
    share(folders, {"a": "text"}, patience=1.2)
    assert time.monotonic() - begin > 1.2, "its launch is given time"
    assert (folders[0] / "a").exists()


def test_a_launch_that_lives_is_waited_for(folders, other):
    """It shows life for longer than anybody has patience, then writes its file."""
    heard = Heard()

    def live():
        for beat in range(1, 20):
            other.write_text(str(beat))
            time.sleep(0.1)
        (folders[0] / "a").write_text("theirs")
        (folders[1] / "a.claim").unlink()

    thread = threading.Thread(target=live)
    thread.start()
    share(folders, {"a": "ours", "b": "ours"}, patience=1.2, progress=heard)
    thread.join()
    assert (folders[0] / "a").read_text() == "theirs"
    assert heard.notes == ["waiting for another launch, which is at the rest"]


def test_threads_that_share_different_work_do_not_mix_it(tmp_path):
    """Launches in one process, by threads: each runs its own function on its own tasks."""
    threads, files = 4, 20

    def write_with(number, task, file):
        time.sleep(0.001)  # lets the others begin theirs in between
        write(f"{number} {task}", file)

    def run(number):
        folder, claims = tmp_path / f"files-{number}", tmp_path / f"claims-{number}"
        folder.mkdir()
        share_work(
            folder, dict.fromkeys(map(str, range(files)), "x"), partial(write_with, number), claims
        )
        return {file.read_text() for file in folder.iterdir()}

    with ThreadPoolExecutor(threads) as pool:
        assert [*pool.map(run, range(threads))] == [{f"{number} x"} for number in range(threads)]
