"""`lidit bench`: candidates in processes that take turns, a table and JSON."""

import dataclasses
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from lidit_jax.benchmarks import KINDS, runner, sample
from lidit_jax.benchmarks.attention import shape_of
from lidit_jax.benchmarks.interleaved import Candidate, build_concurrently, run_interleaved
from lidit_jax.benchmarks.runner import add_psnr, default_platform, print_rows
from lidit_jax.benchmarks.serve import candidates
from lidit_jax.benchmarks.step import recipe_of
from lidit_jax.benchmarks.synthetic import make_batch
from lidit_jax.benchmarks.workload import Settings
from lidit_jax.cli import build_parser, main
from lidit_jax.errors import LiditError
from lidit_jax.planning.plan import describe_text
from tests.benchmarks.fusions import parts
from tests.pytorch.exported import make_bundle, make_export, small

QUICK = ["--rounds=2", "--count=1", "--warmup=1", "--batch=2", "--config=tests/tiny_recipe.py"]


def bench(tmp_path, *arguments):
    file = tmp_path / "bench.json"
    status = main(["bench", *arguments, *QUICK, f"--json={file}"])
    return status, json.loads(file.read_text())["rows"]


def test_every_kind_has_us_first_and_pytorch():
    for kind in KINDS:
        names = list(candidates(kind))
        assert names[0].startswith("lidit-jax")
        assert any("PyTorch" in name for name in names)
        assert build_parser().parse_args(["bench", kind]).what == kind


def test_rounds_that_spread_are_said(capsys):
    row = {"name": "steady", "median_seconds": 1.0, "fastest_round_seconds": 0.9}
    row |= {
        "slowest_round_seconds": 1.1,
        "items_per_second": 8.0,
        "relative_time": 1.0,
        "device": "cpu",
    }
    row |= {"first_seconds": 2.0, "peak_bytes": 2**20}
    print_rows([row, row | {"name": "shaken", "slowest_round_seconds": 1.8}])
    table, warning = capsys.readouterr().out.split("warning: ")
    assert "| 0.9 to 1.1 |" in table
    assert "| 0.9 to 1.8 (2.0 times) |" in table
    assert warning.startswith("the rounds of shaken took from 0.9 to 1.8 s, 2.0 times")


class Recorded:
    """Takes the place of a candidate's process, and writes down when it lives."""

    error, error_lines = "", ()
    is_ready, is_late = True, False

    def __init__(self, name, command, threads, env, patience):
        self.name, self.patience, self.rounds = name, patience, []
        self.settings = json.loads(command[-1])
        self.log.append(f"{name} begins")

    def build(self):
        self.log.append(f"{self.name} is built")

    def round(self, count, *, keep):
        pass

    def work_alone(self, count, warmup):
        pass

    def finish(self):
        self.log.append(f"{self.name} ends")

    def summary(self, first):
        return {"name": self.name, "error": self.settings["dtype"]}


@pytest.fixture
def recorded(monkeypatch):
    """The lives of candidates on a machine whose platform is named."""

    def install(platform):
        monkeypatch.setattr(runner, "default_platform", lambda: platform)
        monkeypatch.setattr(runner, "Candidate", Recorded)
        monkeypatch.setattr(Recorded, "log", [], raising=False)
        return Recorded.log

    return install


def test_a_tpu_belongs_to_one_candidate_at_a_time(tmp_path, recorded, capsys):
    log = recorded("tpu")
    _, rows = bench(tmp_path, "attention")
    names = ["lidit-jax", "lidit-jax, plain products"]
    assert [row["name"] for row in rows] == names
    assert {row["error"] for row in rows} == {"bfloat16"}
    assert log == [f"{n} {what}" for n in names for what in ("begins", "is built", "ends")]
    assert "PyTorch is skipped: it does not run on TPUs\n" in capsys.readouterr().err


def test_elsewhere_candidates_live_together(tmp_path, recorded):
    log = recorded("gpu")
    _, rows = bench(tmp_path, "attention")
    words = [line.rpartition(" ")[2] for line in log]
    assert words == ["begins", "built"] * 3 + ["ends"] * 3
    assert {row["error"] for row in rows} == {"bfloat16"}
    recorded("cpu")
    _, rows = bench(tmp_path, "attention")
    assert {row["error"] for row in rows} == {"float32"}


def test_where_there_are_cores_candidates_are_built_together(recorded):
    log, noted = recorded("gpu"), []
    settings = Settings("step", "demo", dtype="bfloat16")
    runner.run_candidates(
        settings,
        **{"rounds": 2, "count": 1, "warmup": 1, "torch": True, "without": "eager"},
        **{"together": True, "patience": 60.0, "note": noted.append},
    )
    names = ["lidit-jax, jit", "PyTorch, compile"]
    assert log == [f"{n} {what}" for what in ("begins", "is built", "ends") for n in names]
    assert [[row["name"] for row in facts["rows"]] for facts in noted] == [names] * 2


def test_on_few_cores_a_figure_is_noted_before_the_next_candidate_is_built(recorded, monkeypatch):
    log, noted = recorded("cpu"), []
    monkeypatch.setattr(Recorded, "work_alone", lambda self, *_: self.rounds.append([0.5]), False)
    turns = {"rounds": 1, "count": 1, "warmup": 1, "torch": True, "without": "eager"}

    def note(facts):
        noted.append(([row["name"] for row in facts["rows"]], len(log)))

    runner.run_candidates(Settings("step", "demo"), **turns, patience=60.0, note=note)
    names = ["lidit-jax, jit", "PyTorch, compile"]
    assert noted == [(names[:1], 2), (names, 4)]


def test_a_candidate_that_is_not_built_in_time_is_left_behind():
    slow = [
        sys.executable,
        "-c",
        "import sys, time; print('so far', file=sys.stderr, flush=True)\n",
    ]
    slow[-1] += "time.sleep(300)"
    candidate = Candidate("slow", slow, 1, {}, patience=3.0)
    candidate.build()
    candidate.round(1, keep=True)
    candidate.finish()
    row = candidate.summary(candidate)
    assert row == {"name": "slow", "error": "not built within 3 s", "error_lines": ["so far"]}


BUILT = "import sys, time; print('{}', flush=True)\n"
BUILT += "for line in sys.stdin: print('[0.5]', flush=True)\nprint('{}')"
HANGS = "import time; time.sleep(300)"


def python(program):
    return [sys.executable, "-u", "-c", program]


def test_who_is_built_is_measured_while_others_are_not_and_after_they_were_left_behind():
    """On a GPU a candidate of two was ready, and no figure of it was on the page."""
    ready = Candidate("ready", python(BUILT), 1, {}, patience=60.0)
    slow = Candidate("slow", python(HANGS), 1, {}, patience=2.0)
    seen = []
    build_concurrently([slow, ready], 1, 1, lambda some: seen.append([one.name for one in some]))
    assert seen[0] == ["ready"]
    assert (ready.rounds, ready.error) == ([[0.5]], "")
    assert slow.error == "not built within 2 s"
    run_interleaved([slow, ready], 2, 1, 1)
    assert ready.rounds == [[0.5]] * 2, "those that it worked alone do not count"


def test_figures_of_one_that_works_alone_outlive_it():
    dies = "print('{}'); input(); print('[1.0]'); input(); print('[0.5]'); input()"
    one = Candidate("one", python(f"{dies}; raise MemoryError('full')"), 1, {})
    other = Candidate("other", python(HANGS), 1, {}, patience=1.0)
    build_concurrently([one, other], 1, 1, lambda some: None)
    run_interleaved([one, other], 2, 1, 1)
    row = one.summary(one)
    assert (row["median_seconds"], row["ended_early"]) == (0.5, "MemoryError: full")


def test_a_candidate_that_ends_early_keeps_its_rounds():
    program = "print('{}'); input(); print('[0.5]', flush=True); input(); raise MemoryError('full')"
    candidate = Candidate("short", [sys.executable, "-u", "-c", program], 1, {})
    candidate.build()
    for _ in range(2):
        candidate.round(1, keep=True)
    row = candidate.summary(candidate)
    assert (row["median_seconds"], row["ended_early"]) == (0.5, "MemoryError: full")


@pytest.mark.parametrize("kind", ["attention", "sample"])
def test_the_parent_leaves_accelerators_alone(kind, repository):
    """Whatever it does, it does on the CPU; candidates keep what JAX_PLATFORMS says."""
    program = f"""if True:
        import os, jax
        from jax._src import xla_bridge
        from lidit_jax.benchmarks import runner
        from lidit_jax.cli import main
        runner.default_platform = lambda: "gpu"
        def recorded_run(settings, **_):
            assert jax.config.jax_platforms == "cpu"
            assert set(xla_bridge._backends) <= {{"cpu"}}
            assert os.environ["JAX_PLATFORMS"] == "cuda,cpu"
            assert settings.dtype == "bfloat16"
            return {{"rows": []}}
        runner.run_candidates = recorded_run
        assert main(["bench", "{kind}"]) == 0
    """
    subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"JAX_PLATFORMS": "cuda,cpu"},
        cwd=repository,
        check=True,
    )


def test_the_platform_is_asked_of_another_process(monkeypatch):
    assert default_platform() == "cpu"
    monkeypatch.setenv("JAX_PLATFORMS", "abacus")
    with pytest.raises(LiditError, match=r"JAX finds no device \(see: lidit doctor\): .*abacus"):
        default_platform()


def test_times_of_different_devices_do_not_compare(capsys):
    times = dict.fromkeys(("median_seconds", "fastest_round_seconds", "slowest_round_seconds"), 1.0)
    row = times | {
        "items_per_second": 1.0,
        "relative_time": 1.0,
        "first_seconds": 1.0,
        "peak_bytes": 0,
    }
    ours, same = row | {"name": "a", "device": "TPU v4"}, row | {"name": "b", "device": "TPU v4"}
    print_rows([{"name": "broken", "error": "no memory"}, ours, same])
    assert "warning" not in capsys.readouterr().out
    print_rows([ours, same, row | {"name": "c", "device": "cpu"}])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "warning: c ran on cpu, a on TPU v4: their times cannot be compared"


def test_the_file_has_a_place_before_anybody_starts(tmp_path, recorded, capsys):
    log = recorded("cpu")
    (tmp_path / "file").touch()
    assert main(["bench", "attention", f"--json={tmp_path / 'file' / 'bench.json'}"]) == 2
    assert "--json: cannot write to" in capsys.readouterr().err
    assert not log


def test_shapes_are_those_of_the_configuration():
    settings = Settings("step", "demo", tokens=40)
    config, streams = recipe_of(settings)
    assert config.vae.source == "pixels"
    assert streams == describe_text(config, prompt=40).streams
    assert make_batch(config, streams, 2)["latent"].shape == (2, *config.latent_shape)
    assert shape_of(settings)[1] == config.image_tokens
    _, (x, *_), *_ = parts("demo", 2)["adaLN: norm, scale, shift"]
    assert x.shape == (2, config.image_tokens, config.model.width)


def test_settings_reach_other_processes_unchanged():
    settings = Settings("step", "demo", ("model.depth=1",), batch=3, dtype="bfloat16")
    assert Settings.from_json(settings.to_json()) == settings
    assert settings.recipe().model.depth == 1
    assert settings.recipe().model.dtype == "bfloat16"


def test_attention_is_timed_beside_pytorch(tmp_path, capsys):
    status, rows = bench(tmp_path, "attention", "--config.data.image_size=64")
    assert status == 0
    ours, plain, theirs = rows
    assert "PyTorch, SDPA" in capsys.readouterr().out
    assert len(ours["rounds"]) == len(theirs["rounds"]) == 2
    assert ours["relative_time"] == 1
    assert ours["flops"] == theirs["flops"] == 6 * 2 * 2 * 4 * 64**2 * 8
    assert ours["kernel"] == plain["kernel"] == "reference", "there is no other on CPUs"
    assert theirs["peak_bytes"] > 0


def test_a_train_step_is_timed_alone(tmp_path):
    status, (step,) = bench(tmp_path, "step", "--no-torch", "--config.model.depth=1")
    assert status == 0
    assert step["items"] == 2
    assert step["flops_per_second"] > 0


def test_an_encoder_is_timed_alone(tmp_path, tiny_encoders):
    chosen = ["--only=instruction cached", f"--encoder={tiny_encoders[0]}", "--tokens=20"]
    status, (encoder,) = bench(tmp_path, "encode", *chosen)
    assert status == 0
    assert encoder["items_per_second"] > 0
    assert encoder["instruction"] > 0


def test_pictures_of_diffusers_scheduler_are_the_same(tiny_config, tmp_path):
    bundle = make_bundle(tmp_path / "bundle", small(tiny_config()))
    exported = make_export(bundle, tmp_path / "torch", with_encoders=True)
    settings = Settings("sample", "demo", batch=2, checkpoint=str(bundle), exported=str(exported))
    rows = [{"name": "ours"}, {"name": "theirs"}, {"name": "broken", "error": "no memory"}]
    for row, workload in zip(
        rows, (sample.jax_workload(settings), sample.torch_workload(settings)), strict=False
    ):
        np.save(tmp_path / row["name"], workload.run())
    add_psnr(rows, tmp_path, "ours")
    likeness = rows[1]["psnr_db"]
    assert likeness is None or likeness > 45, "None is equal"
    assert [len(row) for row in rows] == [1, 2, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["attention", "--only=nobody"], "--only=nobody: no candidate of lidit bench attention"),
        (["sample", "--checkpoint=nowhere"], "no checkpoint in nowhere"),
        (["step", "--config=nothing"], "no recipe 'nothing'"),
        (["step", "--config.model.dept=3"], "config.model has no field 'dept'"),
    ],
)
def test_mistakes_are_named_before_anything_starts(arguments, message, capsys):
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_only_a_flow_is_raced(tiny_config, tmp_path, capsys):
    """DDPM has no sampler that diffusers' flow scheduler could be compared with."""
    config = small(tiny_config())
    diffusion = dataclasses.replace(config.diffusion, process="ddpm", prediction="epsilon")
    bundle = make_bundle(tmp_path / "ddpm", dataclasses.replace(config, diffusion=diffusion))
    assert main(["bench", "sample", f"--checkpoint={bundle}"]) == 2
    assert f"{bundle} is not a text-to-image flow model: name one" in capsys.readouterr().err


def test_one_that_waits_for_its_turn_does_nothing(tmp_path):
    """Neither do the workers that it started: they would read ahead in the others' turns."""
    beats = tmp_path / "beats"
    worker = f"import time\nwhile True: open({str(beats)!r}, 'a').write('x'); time.sleep(0.005)"
    program = (
        "import subprocess, sys, time\n"
        f"worker = subprocess.Popen([sys.executable, '-c', {worker!r}])\n"
        f"while not __import__('os').path.exists({str(beats)!r}): time.sleep(0.01)\n"
        "print('{}')\nfor line in sys.stdin: print('[0.5]')\nworker.kill()\nprint('{}')"
    )
    candidate = Candidate("reads ahead", python(program), 1, {})
    candidate.build()
    for _ in range(2):
        before = beats.stat().st_size
        time.sleep(0.3)
        assert beats.stat().st_size == before
        candidate.round(1, keep=True)
    candidate.finish()
    assert candidate.error == ""
    assert len(candidate.rounds) == 2
