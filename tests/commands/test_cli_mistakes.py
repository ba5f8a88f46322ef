"""What the command line says to each kind of mistake in its options."""

import sys

import pytest

from lidit_jax import cli
from lidit_jax.cli import main
from lidit_jax.errors import LiditError

pytestmark = pytest.mark.output

SAMPLE = ("sample", "--checkpoint=a", "--prompt=a", "--out=x.png")
MISTAKES = {
    "negative scale": ([*SAMPLE, "--guidance=-1"], "'-1' is not a number from 0 to 100"),
    "again and prompt": (
        ["sample", "--prompt=a", "--out=x.png", "--again=y.png"],
        "--again reproduces one image: leave out --prompt",
    ),
    "again and what the record says": (
        ["sample", "--out=x.png", "--again=y.png", "--steps=4", "--seed=0", "--size=64", "--raw"],
        "--again reproduces one image: leave out --seed, --raw, --size, --steps\n",
    ),
    "again of nothing": (
        ["sample", "--out=x.png", "--again=none.png"],
        "none.png is not a readable image",
    ),
    "unknown command": (["smaple"], "invalid choice: 'smaple'"),
    "misspelt option": (["sample", "--promt=x", "--out=x.png"], "did you mean --prompt?"),
    "height of others": ([*SAMPLE, "--height=64"], "no option --height: write --size=WIDTHxHEIGHT"),
    "width of others": ([*SAMPLE, "--width", "64"], "no option --width: write --size=WIDTHxHEIGHT"),
    "steps of others": ([*SAMPLE, "--num_inference_steps=8"], "write --steps"),
    "scale of others": ([*SAMPLE, "--guidance-scale=3"], "--guidance-scale: write --guidance (see"),
    "count of others": ([*SAMPLE, "--num-images=3"], "no option --num-images: write --count"),
    "negative of others": (
        [*SAMPLE, "--negative-prompts=a"],
        "write --negative-prompt (see",
    ),
    "guide of older versions": ([*SAMPLE, "--weaker-checkpoint=x"], "write --guide-checkpoint"),
    "missing option": (["sample", "--prompt=x", "--out=x.png"], "--checkpoint"),
    "empty prompt": (
        ["sample", "--checkpoint=a", "--prompt= ", "--out=x.png"],
        "--prompt is empty",
    ),
    "no prompt": (["sample", "--checkpoint=a", "--out=x.png"], "give --prompt=TEXT"),
    "many into one": (
        ["sample", "--checkpoint=a", "--prompt=a", "--prompt=b", "--out=x.png"],
        "x.png is one file for 2 images: name a folder, or add --grid",
    ),
    "not a png": (
        ["sample", "--checkpoint=a", "--prompt=a", "--out=x.jpg"],
        "end the name in .png",
    ),
    "zero steps": (
        [*SAMPLE, "--steps=0"],
        "argument --steps: '0' is not a whole number above 0",
    ),
    "more images than anybody keeps": (
        ["sample", "--checkpoint=a", "--prompt=a", "--count=1000000000000000000", "--out=new"],
        "1000000000000000000 images are too many at once: draw at most 1000000 per call",
    ),
    "an image larger than any memory": (
        ["sample", "--checkpoint=demo", "--prompt=a", "--size=1000000000000000000", "--out=x.png"],
        "pixels needs more than",
    ),
    "a shape that is a line": (
        ["sample", "--checkpoint=demo", "--prompt=a", f"--aspect={10**18}:1", "--out=x.png"],
        " pixels needs more than",
    ),
    "more steps than anybody waits for": (
        ["sample", "--checkpoint=demo", "--prompt=a", "--steps=1000000000000000000", "--out=x.png"],
        "steps=1000000000000000000: must be 100000 or less",
    ),
    "size in words": (
        [*SAMPLE, "--size=big"],
        "argument --size: 'big' is not a size: write 96 or 96x48",
    ),
    "half a size": (
        [*SAMPLE, "--size=96x"],
        "argument --size: '96x' is not a size: write 96 or 96x48",
    ),
    "aspect without colon": (
        [*SAMPLE, "--aspect=16-9"],
        "argument --aspect: '16-9' is not a shape: write 16:9",
    ),
    "prompt file missing": (
        ["sample", "--checkpoint=a", "--prompts=none.txt", "--out=x.png"],
        "cannot read none.txt (No such file or directory)",
    ),
    "checkpoint missing": (
        ["sample", "--checkpoint=none", "--prompt=a", "--out=new/x.png"],
        "none",
    ),
    "benchmark missing": (["eval"], "BENCHMARK"),
    "benchmark unknown": (["eval", "faces"], "invalid choice: 'faces'"),
    "checkpoint to score missing": (["eval", "scenes", "--checkpoint=none"], "none"),
    "scenes of a lifetime": (
        ["eval", "scenes", "--checkpoint=demo", "--per-task=1000000000000000000", "--out=new"],
        "9000000000000000000 images are too many at once",
    ),
    "checkpoint to export missing": (["export", "--checkpoint=none", "--out=new"], "none"),
    "exported already": (
        ["export", "--checkpoint=demo", "--out=new"],
        "demo is an exported folder already: copy it",
    ),
    "a run that is all warm-up": (
        ["train", "--config=demo", "--workdir=run", "--config.training.steps=100"],
        "config.optimizer.warmup_steps=200 fills the whole run of config.training.steps=100",
    ),
    "recipe missing": (["train", "--config=none", "--workdir=run"], "no recipe 'none'"),
    "field unknown": (
        ["train", "--config=demo", "--workdir=run", "--config.model.widht=8"],
        "config.model has no field 'widht': did you mean 'width'?",
    ),
    "field of wrong type": (
        ["train", "--config=demo", "--workdir=run", "--config.model.width=wide"],
        "config.model.width='wide' is str, must be int",
    ),
    "override without value": (
        ["train", "--config=demo", "--workdir=w", "--config.seed"],
        "--config.seed has no value: write --config.seed=VALUE",
    ),
}


@pytest.mark.parametrize(("arguments", "expected"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_get_one_line_and_leave_nothing_behind(
    arguments, expected, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("lidit: error: ")
    assert shown.err.count("\n") == 1
    assert expected in shown.err
    assert shown.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_parser_reads_the_command_line_of_the_process(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lidit", "--seeed=1"])
    parser = cli._Parser("lidit")
    parser.add_argument("--seed")
    with pytest.raises(LiditError, match="did you mean --seed"):
        parser.parse_args()
