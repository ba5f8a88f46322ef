"""Pictures of `lidit eval` by a real pipeline: each can be drawn again, alone or in a batch."""

import numpy as np
from PIL import Image

from lidit_jax.cli import main


def pixels(file):
    with Image.open(file) as image:
        return np.asarray(image).astype(int)


def test_a_picture_of_a_suite_does_not_depend_on_its_batch(folder, tmp_path):
    """Programs of other batch sizes round differently: by one level of 255 at most."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\n")
    command = ["eval", "prompts", str(prompts), f"--checkpoint={folder}"]
    assert main([*command, f"--out={tmp_path / 'all'}", "--images-per-prompt=2"]) == 0
    few = ["--images-per-prompt=1", f"--out={tmp_path / 'few'}"]
    assert main([*command, *few]) == 0
    file = "00000/0000.png"
    assert np.abs(pixels(tmp_path / "all" / file) - pixels(tmp_path / "few" / file)).max() <= 1
    assert np.any(pixels(tmp_path / "all" / file) != pixels(tmp_path / "all/00000/0001.png"))
    again = tmp_path / "again.png"
    assert main(["sample", f"--again={tmp_path / 'few' / file}", f"--out={again}"]) == 0
    assert np.array_equal(pixels(again), pixels(tmp_path / "few" / file))
