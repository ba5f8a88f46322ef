"""A progress bar with time left for long work; plain lines where there is no terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lidit_jax.io.console import WholeWordConsole


def bar_on(console: WholeWordConsole) -> Progress:
    """A bar with the number done and the time left; nothing where there is no terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a function to be told (done, total).

    Work that is found complete shows nothing.
    """
    console = WholeWordConsole()
    bar = bar_on(console)
    tasks = []

    def report(done: int, total: int) -> None:
        if not tasks:
            if done == total:
                return
            bar.start()
            tasks.append(bar.add_task(label, total=total))
        bar.update(tasks[0], completed=done)
        if not console.is_terminal:
            print(f"{label}: {done}/{total}", flush=True)

    try:
        yield report
    finally:
        bar.stop()
