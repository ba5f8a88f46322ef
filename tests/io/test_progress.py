"""Progress where there is no terminal: plain lines, in the file that was asked for."""

import io

import lidit_jax.io.progress
from lidit_jax.io.console import NoWrapConsole
from lidit_jax.io.progress import Progress, SlowProgress, SubtaskProgress, progress_bar


def shown(work):
    file = io.StringIO()
    with progress_bar("drawing", file) as progress:
        work(progress)
    return file.getvalue()


def test_reports_and_notes_are_lines():
    def work(progress):
        progress.note("compiling")
        progress(1, 2)
        progress(2, 2)

    assert shown(work) == "drawing: compiling\ndrawing: 1/2\ndrawing: 2/2\n"


def test_pieces_count_as_parts_of_the_whole():
    def work(progress):
        for piece in range(2):
            SubtaskProgress(progress, piece, 2)(3, 3)
        SubtaskProgress(progress, 1, 2).note("compiling")

    assert shown(work) == "drawing: 3/6\ndrawing: 6/6\ndrawing: compiling\n"


def test_work_that_is_found_complete_shows_nothing():
    assert shown(lambda progress: progress(2, 2)) == ""


def test_on_a_terminal_a_note_stands_until_the_next_report(monkeypatch):
    monkeypatch.setattr(
        lidit_jax.io.progress,
        "NoWrapConsole",
        lambda file: NoWrapConsole(file=file, force_terminal=True),
    )

    def work(progress):
        progress.note("compiling")
        progress(1, 2)

    text = shown(work)
    assert "drawing: compiling" in text
    assert "1/2" in text.rpartition("drawing")[2]


def test_lines_of_long_work_state_the_remaining_time(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])

    def work(progress):
        progress(10, 1000)
        for seconds, done in ((9, 19), (11, 21), (90, 100), (900, 910), (990, 1000)):
            clock[0] = seconds
            progress(done, 1000)

    lines = shown(work).replace("drawing: ", "").splitlines()
    assert lines[:3] == ["10/1000", "19/1000", "21/1000, 16 min left"]
    assert lines[3:] == ["100/1000, 15 min left", "910/1000, 90 s left", "1000/1000"]


def test_lines_of_quick_units_are_few(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])

    def work(progress):
        for done in range(1001):
            progress(done, 1000)
            clock[0] += 0.0078125

    assert shown(work).replace("drawing: ", "").split() == [
        *("0/1000", "256/1000", "512/1000", "768/1000", "1000/1000")
    ]


def test_quick_work_shows_nothing_and_slow_work_little(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    reports = []

    class Heard(Progress):
        def __call__(self, done, total):
            reports.append((done, total))

    quick = SlowProgress(Heard())
    for done in range(11):
        quick(done, 10)
    assert reports == []
    slow = SlowProgress(Heard())
    for done in range(11):
        slow(done, 10)
        clock[0] += 0.75
    assert reports == [(3, 10), (6, 10), (9, 10), (10, 10)]
    clock[0] += 10
    slow(10, 10)
    assert len(reports) == 4, "which is no news"
