"""`lidit bench`: contenders in processes that take turns, a table and JSON."""

import dataclasses
import json

import numpy as np
import pytest

from lidit_jax.benchmarks import sample
from lidit_jax.benchmarks.race import add_likeness
from lidit_jax.benchmarks.serve import KINDS, contenders
from lidit_jax.benchmarks.workload import Settings
from lidit_jax.cli import main
from tests.weights.exported import make_bundle, make_export, small

QUICK = ["--rounds=2", "--count=1", "--warmup=1", "--batch=2", "--config=tests/tiny_recipe.py"]


def bench(tmp_path, *arguments):
    file = tmp_path / "bench.json"
    status = main(["bench", *arguments, *QUICK, f"--json={file}"])
    return status, json.loads(file.read_text())["rows"]


def test_every_kind_has_us_first_and_pytorch():
    for kind in KINDS:
        names = list(contenders(kind))
        assert names[0].startswith("lidit-jax")
        assert any("PyTorch" in name for name in names)


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
    assert ours["of_ours"] == 1
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
    for row, workload in zip(rows, (sample.ours(settings), sample.torchs(settings)), strict=False):
        np.save(tmp_path / row["name"], workload.run())
    add_likeness(rows, tmp_path, "ours")
    likeness = rows[1]["psnr_db"]
    assert likeness is None or likeness > 45, "None is equal"
    assert [len(row) for row in rows] == [1, 2, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["attention", "--only=nobody"], "--only=nobody: no contender of lidit bench attention"),
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
    assert f"{bundle} is no text-to-image flow: name one" in capsys.readouterr().err
