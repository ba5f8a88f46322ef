"""The page of all recipes' plans."""

import json
import shutil
from pathlib import Path

import pytest

from lidit_jax.planning import weak_scaling
from lidit_jax.planning.recipe_plans import replan, write_recipe_plans

DOCS = Path(__file__).parents[2] / "docs"


def test_the_committed_page_is_what_the_command_writes(tmp_path):
    """After a change of the formula: `lidit plan --all-recipes --out=docs`."""
    shutil.copytree(DOCS / "compiled", tmp_path / "compiled")
    page, picture = write_recipe_plans(tmp_path)
    assert page.read_text() == (DOCS / "plans.md").read_text()
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_every_compiled_program_has_its_row():
    lines = (DOCS / "plans.md").read_text().splitlines()
    files = [json.loads(file.read_text()) for file in (DOCS / "compiled").glob("*.json")]
    assert len(files) > 8
    for facts in files:
        first = (
            f"| {facts['chips']:,} |" if weak_scaling.is_row(facts) else f"| `{facts['recipe']}`"
        )
        took = f"| {facts['compiled']['seconds']:.0f} | "
        assert any(line.startswith(first) and took in line for line in lines), facts["recipe"]


def test_the_plans_that_the_guide_quotes_are_those_of_the_page():
    """Memory, seconds, utilization and chip-hours, of every row of its table."""
    page = (DOCS / "plans.md").read_text().splitlines()
    guide = (DOCS / "pods.md").read_text()
    table = guide.partition("chip-hours |\n")[2].partition("\n\n")[0].splitlines()[1:]
    assert len(table) == 10
    for row in table:
        figures = row.split("|")[-5:-1]
        assert any(all(f"|{figure}|" in line for figure in figures) for line in page), row


def test_rows_of_weak_scaling_are_known_by_their_words():
    facts = {"recipe": "configs/lidit_10b.py:v5p:8x8x16,1024px,head128", "chips": 64, "batch": 256}
    assert weak_scaling.is_row(facts)
    assert not weak_scaling.is_row(facts | {"batch": 4096})
    assert not weak_scaling.is_row(facts | {"recipe": "lidit_10b:1024px,v5p:8x8x16"})


def test_the_formula_of_memory_follows_the_compiler():
    """Within a twentieth of what a device needs, whatever the recipe, the policy and the slice."""
    for file in (DOCS / "compiled").glob("*.json"):
        facts = json.loads(file.read_text())
        needed = facts["compiled"]["arguments"] + facts["compiled"]["temporaries"]
        found = replan(facts).memory.total
        assert found == pytest.approx(needed, rel=0.05), file.name
