"""What people copy from the output is whole, at every width."""

import io

import pytest
from rich.table import Table
from rich.text import Text

from lidit_jax.cli import main
from lidit_jax.io.console import NoWrapConsole
from lidit_jax.io.progress import bar_on

pytestmark = pytest.mark.output

PATH = "/data/my runs/[first] run :star:/" + "checkpoints" * 8 + "/step_000100.png"
WIDTHS = pytest.mark.parametrize("columns", ["40", "300"])


@pytest.fixture
def printed(monkeypatch):
    """`printed(columns, method, argument, **options)`: what a console writes."""

    def write(columns, method, argument, **options):
        monkeypatch.setenv("COLUMNS", columns)
        console = NoWrapConsole(file=io.StringIO(), color_system=None, **options)
        getattr(console, method)(argument)
        return console.file.getvalue()

    return write


def table_of(*rows) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    return table


ROWS = (
    ("weights", Text("5 GiB")),
    ("run", Text(f"{PATH} is where it writes, as it always did before, and where it will")),
    ("[ici] gathers", Text("of weights within a slice, hidden behind the work of the others")),
)


@WIDTHS
@pytest.mark.parametrize("force_terminal", [False, True])
def test_a_line_stays_one_line_with_its_brackets_and_spaces(printed, columns, force_terminal):
    text = f"weights from {PATH}; 0 parameters start afresh"
    assert printed(columns, "say", text, force_terminal=force_terminal) == text + "\n"


@WIDTHS
def test_a_table_in_a_file_has_a_line_a_row(printed, columns):
    shown = printed(columns, "show", table_of(*ROWS))
    assert [line.split(maxsplit=1)[0] for line in shown.splitlines()] == ["weights", "run", "[ici]"]
    for _, cell in ROWS:
        assert cell.plain in shown
    assert not any(line.endswith(" ") for line in shown.splitlines())


@pytest.mark.parametrize("columns", ["10", "40", "79", "100", "300"])
@pytest.mark.parametrize("box", [False, True])
def test_a_table_on_a_terminal_breaks_between_words_only(printed, columns, box):
    table = Table(title="a run") if box else table_of()
    table.add_column("what")
    table.add_column("in words")
    for row in ROWS:
        table.add_row(*row)
    shown = printed(columns, "show", table, force_terminal=True)
    assert {word for row in ROWS for cell in row for word in str(cell).split()} <= set(
        shown.split()
    )
    width = max(map(len, shown.splitlines()))
    longest = max(PATH.split(), key=len)
    assert width <= max(int(columns), len("gathers") + len(longest) + 10)


def test_a_table_wraps_where_words_allow_it(printed):
    lines = printed("60", "show", table_of(ROWS[0], ROWS[2]), force_terminal=True).splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) <= 60
    assert lines[2].startswith(" " * len(ROWS[2][0])), "the rest of its cell, below its beginning"


def test_a_bar_says_brackets_too(monkeypatch):
    console = NoWrapConsole(file=io.StringIO(), force_terminal=True, color_system=None)
    with bar_on(console) as bar:
        bar.add_task("reading [a]", total=3)
    assert "reading [a]" in console.file.getvalue()


@pytest.mark.parametrize("command", ["doctor", "plan --config=demo --topology=v5e:2x2 --search"])
def test_tables_of_commands_do_not_depend_on_columns(monkeypatch, capsys, command):
    shown = []
    for columns in ("40", "300"):
        monkeypatch.setenv("COLUMNS", columns)
        assert main(command.split()) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
