"""`lidit plan`: its table, files, hints and mistakes."""

import json

import pytest

from lidit_jax.cli import main
from lidit_jax.planning import compiled_plan
from lidit_jax.planning.compiled_plan import CompilerRefusalError

pytestmark = pytest.mark.output


def test_the_command_prints_a_table_and_writes_json_and_a_picture(tmp_path, capsys):
    arguments = ["plan", "--config=lidit_10b", "--topology=v5p:8x8x16", "--mesh=fsdp=64,tensor=2"]
    files = [f"--json={tmp_path / 'plan.json'}", f"--png={tmp_path / 'plan.png'}"]
    assert main([*arguments, *files, "--price-per-chip-hour=2"]) == 0
    shown = capsys.readouterr().out
    assert "predicted step" in shown
    assert "held out by family" in shown
    facts = json.loads((tmp_path / "plan.json").read_text())
    assert facts["chips"] == 1024
    assert facts["mesh"]["data"] == 8
    assert facts["prediction"]["cost"] == pytest.approx(2 * facts["prediction"]["chip_hours"])
    assert {row["family"] for row in facts["held_out_errors"]} >= {"MaxDiffusion v5p"}
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


def test_a_plan_for_gpus_says_that_nothing_was_compared(capsys):
    assert main(["plan", "--config=lidit_10b", "--topology=h100:8x32", "--search"]) == 0
    assert "not compared with published steps on GPUs" in capsys.readouterr().out
    assert main(["plan", "--config=lidit_10b", "--topology=h100:8x32", "--compile"]) == 2
    assert "h100:8x32 has no compiler" in capsys.readouterr().err


def test_the_cloud_s_name_of_a_slice_is_understood_and_explained(tmp_path, capsys):
    file = tmp_path / "plan.json"
    arguments = ["plan", "--config=lidit_1b", "--topology=v5p-256", "--images=2M"]
    assert main([*arguments, f"--json={file}"]) == 0
    assert capsys.readouterr().out.startswith("v5p-256: 128 chips, v5p:4x4x8\n")
    facts = json.loads(file.read_text())
    assert (facts["topology"], facts["chips"]) == ("v5p:4x4x8", 128)
    text = facts["text"]
    assert text["cached_bytes"] == 2_000_000 * text["cached_bytes_a_sample"]


def test_a_plan_that_does_not_fit_says_by_how_much_and_what_would(capsys):
    arguments = ["plan", "--config=lidit_10b:1024px", "--topology=v5e:4x4"]
    assert main(arguments) == 1
    shown = capsys.readouterr().out
    assert "GiB too much per device; the nearest that fits: v5e:" in shown


def test_the_layout_of_the_recipe_is_pointed_at_where_it_is_not_used(capsys):
    hint = "a layout for v5p:8x8x16: --config=lidit_10b:1024px,v5p:8x8x16"
    assert main(["plan", "--config=lidit_10b:1024px", "--topology=v5p:8x8x16"]) == 0
    assert hint in capsys.readouterr().out
    assert main(["plan", "--config=lidit_10b:1024px,v5p:8x8x16", "--topology=v5p:8x8x16"]) == 0
    assert "This recipe has a layout" not in capsys.readouterr().out
    assert main(["plan", "--config=lidit_10b", "--topology=v5p:8x8x16", "--slices=2"]) == 0
    assert "--config=lidit_10b:v5p:8x8x16,2slices" in capsys.readouterr().out
    assert main(["plan", "--config=lidit_10b:v5p:4x8x8", "--topology=v5p:8x8x16"]) == 0
    assert "This recipe has a layout" not in capsys.readouterr().out, "one was asked for"


def test_mistakes_in_a_plan_get_one_line(capsys):
    small = ["--config=demo", "--topology=v5e:2x2"]
    paper = ["--config=lidit_1b", "--topology=v5e:16x16"]
    for wrong, message in (
        (["--config=lidit_10b", "--topology=v5e:5x5"], "--topology=v5e:5x5"),
        (["--config=lidit_10b"], "needs --config and --topology"),
        (["--all-recipes", "--out=/nowhere"], "--all-recipes needs an existing folder"),
        (["--hlo=x"], "--hlo writes the program that --compile compiles: add --compile"),
        (
            ["--search", "--mesh=fsdp=4"],
            "--search compares all meshes: leave out --mesh or --search",
        ),
        (["--out=x"], "--out is for --all-recipes"),
        (["--all-recipes", "--config=demo"], "leave out --config and --topology"),
        (["--config=demo", "--topology=v5p-100"], "nearest: v5p-64 (32 chips, v5p:2x4x4) and"),
        ([*small, "--images=2.5"], "argument --images: '2.5' is not a whole number above 0"),
        ([*small, "--json=/tmp"], "--json: /tmp is a folder: name a file in it"),
        ([*small, "--png=x.foo"], "--png: x.foo must end in .png"),
        ([*small, "--price-per-chip-hour=-3"], "'-3' is not a number, 0 or above"),
        ([*small, "--price-per-chip-hour=nan"], "'nan' is not a number, 0 or above"),
        ([*small, "--mesh=fsdp=2,fsdp=4"], "fsdp is given twice"),
        ([*small, "--mesh=fsdp=²"], "write AXIS=SIZE"),
        ([*small, "--slices=2", "--mesh=replica=1"], "are 2 slices: leave it out"),
        (["--config=demo_vae", "--topology=v5e:2x2"], "plans are of the text-to-image model"),
        ([*paper, "--config.data.image_size=100"], "is not a multiple of the 16 pixels of a token"),
        (["--config=lidit_1b:v5e:16x16,2slices", *paper[1:]], "add --slices=2"),
        (["--config=lidit_1b:v5e:16x16,v5p:8x8x16", "--topology=v5e:16x16"], "choose one topology"),
        (["--config=lidit_1b:2slices", *paper[1:]], "2slices needs a topology"),
    ):
        assert main(["plan", *wrong]) == 2
        assert message in capsys.readouterr().err


def test_what_the_compiler_refuses_is_planned_all_the_same(tmp_path, capsys, monkeypatch):
    """With the formula's figures, and a plan that needs less."""

    def refuse(*_):
        raise CompilerRefusalError("the TPU compiler rejects this plan: too large")

    monkeypatch.setattr(compiled_plan, "compile_plan", refuse)
    file = tmp_path / "plan.json"
    arguments = ["plan", "--config=lidit_10b:1024px,v5e:16x16", "--topology=v5e:16x16"]
    assert main([*arguments, "--compile", f"--json={file}"]) == 2
    shown = capsys.readouterr()
    assert "predicted step" in shown.out
    assert "rejects this plan: too large: try v5e:16x16, " in shown.err
    assert "no, the compiler rejects it; the nearest that fits: v5e" in shown.out
    facts = json.loads(file.read_text())
    assert facts["nearest_that_fits"]
    assert facts["fits"] is False
