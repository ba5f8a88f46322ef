"""What the image grid of a run shows where nobody has chosen prompts."""

import pytest
from PIL import Image

from lidit_jax.data.grid_prompts import grid_prompts
from lidit_jax.data.opened_data import open_data

FOLDER = ("data.source=folder", "training.prompts=()")


@pytest.fixture
def opened(tiny_config, tmp_path):
    """`opened(captions)`: configuration and data of a folder with a picture for each caption."""

    def open_folder(captions, *overrides):
        for number, caption in enumerate(captions):
            Image.new("RGB", (8, 8)).save(tmp_path / f"{number:03d}.png")
            (tmp_path / f"{number:03d}.txt").write_text(caption)
        config = tiny_config(*FOLDER, f"data.path={tmp_path}", *overrides)
        return config, open_data(config, 8)

    return open_folder


def test_captions_of_a_folder_are_spread_over_it(opened):
    alphabet = "abcdefghijklmnopqrstuvwx"
    assert grid_prompts(*opened(alphabet)) == ("a", "d", "g", "j", "m", "p", "s", "v")


def test_few_captions_are_all_shown(opened):
    assert grid_prompts(*opened("abc")) == ("a", "b", "c")


def test_a_caption_is_shown_once_however_many_pictures_have_it(opened):
    repeated = [*["a cat"] * 50, "a dog", "a cat", "a cow"]
    assert grid_prompts(*opened(repeated)) == ("a cat", "a dog")


def test_one_that_is_gone_is_left_out(opened, tmp_path):
    config, data = opened("abc")
    (tmp_path / "001.txt").unlink()
    assert grid_prompts(config, data) == ("a", "c")


def test_captions_of_two_sources_are_shown(opened):
    config, data = opened("abcd", "data.mixture=('scenes:',)", "data.train_records=4")
    assert len(grid_prompts(config, data)) == 8
    assert grid_prompts(config, data)[0] == "a"


def test_scenes_have_prompts_of_their_own(tiny_config):
    config = tiny_config("training.prompts=()")
    prompts = grid_prompts(config, open_data(config, 8))
    assert prompts[0] == "a red circle"
    assert len(prompts) == 4


def test_prompts_of_the_user_win(tiny_config):
    config = tiny_config("training.prompts=('a red hat',)")
    assert grid_prompts(config, open_data(config, 8)) == ("a red hat",)
