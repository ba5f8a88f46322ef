"""`lidit eval geneval`, `compbench`, `dpg` and `prompts`, as typed."""

import os
import signal
import socket
import subprocess
import sys
from argparse import Namespace

import jax
import pytest

from lidit_jax.cli import main
from lidit_jax.commands.device_options import chosen_mesh
from lidit_jax.errors import LiditError
from lidit_jax.evaluation.suites import drawing_record
from lidit_jax.sampling.pipeline import Pipeline
from tests.evaluation.suites.stand_ins import Drawer

pytestmark = pytest.mark.output


@pytest.fixture
def drawer(monkeypatch):
    fake = Drawer()
    monkeypatch.setattr(Pipeline, "from_checkpoint", lambda *_, **__: fake)
    return fake


@pytest.fixture
def prompts(tmp_path):
    folder = tmp_path / "dpg_bench"
    folder.mkdir()
    for name in ("1", "2"):
        (folder / f"{name}.txt").write_text(f"A long prompt, number {name}.")
    return folder


def test_a_suite_is_drawn_and_its_scorer_is_named(drawer, prompts, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LIDIT_BENCHMARKS", str(tmp_path))
    out = tmp_path / "out"
    command = ["eval", "dpg", "--checkpoint=any", f"--out={out}", "--limit=1", "--steps=3"]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert f"{out}: 4 images of 1 prompts (--limit=1, of 2)" in told
    assert f'PIC_NUM=4 bash dpg_bench/dist_eval.sh "{out}" 64' in told
    assert sorted(path.name for path in out.iterdir()) == ["1.png", "lidit"]
    assert len(drawer.drawn) == 4
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--out=out"]) == 0
    assert f'dist_eval.sh "{out}" 64' in capsys.readouterr().out, "runs in another folder"


def test_scores_are_printed_and_their_files_named(prompts, tmp_path, capsys):
    results = tmp_path / "results.txt"
    lines = [f"out/{key}.png, 1.0, 0.5, 0.5, 1.0, 0.75" for key in (1, 2)]
    results.write_text("\n".join([*lines, "DPG-Bench score: 75.0"]))
    out = tmp_path / "out"
    command = ["eval", "dpg", f"--benchmark={prompts}", f"--out={out}", f"--score={results}"]
    assert main([*command, "--name=mine"]) == 0
    told = capsys.readouterr().out
    assert "| LI-DiT-1B | 81.65 |" in told
    subset = "DPG-Bench: 2 prompts, not the 1065 of the official set"
    assert f"| **mine ({subset})** | 75.00 |" in told
    assert f"{out / 'lidit'}: scores.json, scores.md, scores.png" in told
    results.write_text("\n".join([lines[0], "DPG-Bench score: 75.0"]))
    assert main(command) == 2
    assert "4 of 8 expected images have no result" in capsys.readouterr().err


def test_sigterm_stops_each_process_of_a_job(drawer, prompts, tmp_path, monkeypatch, capsys):
    def terminated(*_, **__):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(drawing_record, "begin", terminated)
    command = ["eval", "dpg", "--checkpoint=any", f"--benchmark={prompts}", f"--out={tmp_path}/o"]
    ignored = []
    # The handler of jax.distributed, which only takes note.
    before = signal.signal(signal.SIGTERM, lambda number, _: ignored.append(number))
    try:
        assert main(command) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().out == "stopped; run the same command to go on\n"
    assert (drawer.drawn, ignored) == ([], [])


def test_a_tilde_is_the_home_folder(drawer, prompts, tmp_path, monkeypatch, capsys):
    """Shells leave it in --option=~/FOLDER."""
    monkeypatch.setenv("HOME", str(tmp_path))
    command = ["eval", "dpg", "--checkpoint=any", "--limit=1", "--images-per-prompt=1"]
    assert main([*command, "--out=~/named", "--benchmark=~/dpg_bench"]) == 0
    monkeypatch.setenv("LIDIT_BENCHMARKS", "~")
    assert main([*command, "--out=~/found"]) == 0
    assert (tmp_path / "named" / "1.png").exists()
    assert (tmp_path / "found" / "1.png").exists()
    capsys.readouterr()
    score = ["eval", "dpg", "--out=~/named", "--images-per-prompt=1"]
    assert main([*score, "--score=~/none.txt"]) == 2
    assert f"cannot read {tmp_path / 'none.txt'}" in capsys.readouterr().err
    lines = [f"out/{key}.png, 0.5, 0.5" for key in (1, 2)]
    (tmp_path / "results.txt").write_text("\n".join([*lines, "DPG-Bench score: 50.0"]))
    assert main([*score[:2], "--out=~/new", score[3], "--score=~/results.txt", "--with=~/no"]) == 2
    assert f"cannot read {tmp_path / 'no'}" in capsys.readouterr().err


def test_prompts_of_a_file_are_drawn(drawer, tmp_path, capsys):
    file, out = tmp_path / "prompts.txt", tmp_path / "out"
    file.write_text("a red circle\n")
    command = ["eval", "prompts", str(file), "--checkpoint=any", f"--out={out}"]
    assert main([*command, "--images-per-prompt=2"]) == 0
    assert f"{out}: 2 images of 1 prompts\n" in capsys.readouterr().out
    assert sorted(path.name for path in (out / "00000").iterdir()) == ["0000.png", "0001.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["geneval", "--out=o", "--checkpoint=a"], "--benchmark is missing: name the folder of"),
        (["geneval", "--out=o"], "--checkpoint is missing: name a workdir"),
        (["dpg", "--checkpoint=a"], "required: --out"),
        (
            ["compbench", "--out=o", "--score=r", "--checkpoint=a", "--encoder=a=b", "--seed=0"],
            "--score reads results and draws nothing: leave out --checkpoint, --encoder, --seed",
        ),
        (
            ["compbench", "--out=o", "--checkpoint=a", "--name=x", "--with=y"],
            "without --score nothing is scored: leave out --name, --with",
        ),
        (["geneval", "--out=o", "--checkpoint=a", "--benchmark=."], "holds no evaluation_metadata"),
        (["prompts", "none.txt", "--out=o", "--checkpoint=a"], "cannot read none.txt"),
        (["prompts", "a.txt", "--out=o", "--score=r"], "has no option --score"),
        (["dpg", "--out=o", "--checkpoint=a", "--limit=0"], "--limit: '0' is not a whole number"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIDIT_BENCHMARKS", raising=False)
    assert main(["eval", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


def test_a_number_that_the_scorer_cannot_read_is_refused_before_the_model_loads(
    prompts, tmp_path, capsys
):
    command = ["eval", "dpg", f"--benchmark={prompts}", "--checkpoint=none", f"--out={tmp_path}/o"]
    assert main([*command, "--images-per-prompt=3"]) == 2
    assert "DPG-Bench reads grids of 4 images" in capsys.readouterr().err
    assert main([*command, "--size=96x48"]) == 2
    assert "the scorer of DPG-Bench reads square images" in capsys.readouterr().err


def test_processes_of_a_job_are_joined_before_devices_are_used(tmp_path):
    """JAX refuses to join them later, so that the job would not start."""
    (tmp_path / "prompts.txt").write_text("a red circle\n")
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    job = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"}
    command = [sys.executable, "-m", "lidit_jax.cli", "eval", "prompts", "prompts.txt"]
    ended = subprocess.run(
        [*command, "--checkpoint=none", "--out=out"],
        cwd=tmp_path,
        env=os.environ | job | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 2
    assert "lidit: error: no checkpoint in none: " in ended.stderr


@pytest.mark.parametrize("name", ["geneval", "compbench", "dpg", "prompts"])
def test_the_help_teaches_with_examples(name, capsys):
    assert main(["eval", name, "--help"]) == 0
    told = capsys.readouterr().out
    assert f"  lidit eval {name} " in told.partition("examples:")[2]
    assert "{" not in told


def test_the_devices_of_the_process_are_divided():
    assert chosen_mesh(Namespace(tensor=None, fsdp=None)) is None
    mesh = chosen_mesh(Namespace(tensor=2, fsdp=1))
    assert mesh is not None
    assert (mesh.data, mesh.fsdp, mesh.tensor) == (-1, 1, 2)
    with pytest.raises(LiditError, match="--tensor=3: the product must divide the 8 devices"):
        chosen_mesh(Namespace(tensor=3, fsdp=None))
