"""The prompts that `lidit sample` reads."""

import argparse

import pytest

from lidit_jax.cli import main
from lidit_jax.commands.sample_inputs import read_prompts
from lidit_jax.errors import LiditError


def prompts(file=None, *texts):
    return read_prompts(argparse.Namespace(prompt=texts, prompts=file))


def test_a_file_of_prompts_has_one_a_line_whatever_else_may_break_lines(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_bytes(
        "\ufeffa red circle\r\na blue square\u2028still the second prompt\n\n \t\n".encode()
    )
    assert prompts(file) == ["a red circle", "a blue square still the second prompt"]


def test_prompts_of_the_command_line_are_cleaned_and_damaged_ones_refused():
    assert prompts(None, "a red circle\n", "cafe\u0301") == ["a red circle", "café"]
    with pytest.raises(LiditError, match=r"--prompt: .* half of a character"):
        prompts(None, "a \udcff cat")
    with pytest.raises(LiditError, match="--prompt is empty"):
        prompts(None, "\ufeff")


def test_an_enormous_picture_is_refused_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 100)
    from PIL import Image

    from lidit_jax.commands.sample_canvas import read_image
    from lidit_jax.sampling import png_metadata

    file = tmp_path / "huge.png"
    Image.new("RGB", (20, 20)).save(file)
    with pytest.raises(LiditError, match=r"huge.png has .* megapixels, the limit is"):
        read_image(file, "--image", None, 8)
    with pytest.raises(LiditError, match=r"huge.png is not a readable image"):
        png_metadata.read(file)
    assert main(["sample", f"--again={file}", f"--out={tmp_path}/x.png"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
