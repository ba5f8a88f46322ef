"""The official prompts, where they are, and small sets of prompts in their formats."""

import json
import os
from pathlib import Path

import pytest

from lidit_jax.evaluation.suites.compbench import CompBench
from lidit_jax.evaluation.suites.geneval import GenEval
from lidit_jax.evaluation.suites.prompt_files import FOLDERS


@pytest.fixture(scope="session")
def official(repository) -> Path:
    """The folder of the official prompts of all suites."""
    folder = Path(os.environ.get(FOLDERS) or repository.parent / "shared" / "benchmarks")
    if not folder.is_dir():
        pytest.skip(f"no official prompts: set {FOLDERS} to a folder that holds them")
    return folder


@pytest.fixture
def geneval_prompts(tmp_path) -> Path:
    """Two prompts of each task of GenEval."""
    folder = tmp_path / "geneval"
    folder.mkdir()
    rows = [
        {"tag": task.name, "include": [], "prompt": f"a photo of {task.name} {number}"}
        for task in GenEval.tasks
        for number in range(2)
    ]
    (folder / "evaluation_metadata.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in rows))
    return folder


@pytest.fixture
def compbench_prompts(tmp_path) -> Path:
    """Two prompts of each category of T2I-CompBench."""
    folder = tmp_path / "compbench"
    folder.mkdir()
    for task in CompBench.tasks:
        kind = task.name.replace("_", " ")
        (folder / f"{task.name}_val.txt").write_text(f"one {kind}.\ntwo {kind}s.")
    return folder


@pytest.fixture
def dpg_prompts(tmp_path) -> Path:
    """Three prompts of DPG-Bench."""
    folder = tmp_path / "dpg"
    folder.mkdir()
    for name in ("2", "10", "COCO3"):
        (folder / f"{name}.txt").write_text(f"A long prompt, number {name}. ")
    return folder
