"""What the image grid of a run shows where nobody has chosen prompts."""

from lidit_jax.data.grid_prompts import grid_prompts
from lidit_jax.data.image_source import ImageSource
from lidit_jax.data.source_kinds import open_image_source


class Captions(ImageSource):
    """A source that has nothing but captions."""

    def __init__(self, captions):
        self._captions = captions

    def __len__(self):
        return len(self._captions)

    @property
    def distinct_captions(self):
        return len(self)

    def caption(self, index):
        return self._captions[index]


FOLDER = ("data.source=folder", "training.prompts=()")


def test_captions_of_a_folder_are_spread_over_it(tiny_config):
    config = tiny_config(*FOLDER)
    alphabet = Captions("abcdefghijklmnopqrstuvwx")
    assert grid_prompts(config, alphabet) == ("a", "d", "g", "j", "m", "p", "s", "v")
    assert grid_prompts(config, Captions("abc")) == ("a", "b", "c")


def test_a_caption_is_shown_once_however_many_pictures_have_it(tiny_config):
    repeated = Captions(["a cat"] * 50 + ["a dog", "a cat", "a cow"])
    assert grid_prompts(tiny_config(*FOLDER), repeated) == ("a cat", "a dog", "a cow")


def test_scenes_have_prompts_of_their_own(tiny_config):
    config = tiny_config("training.prompts=()")
    prompts = grid_prompts(config, open_image_source(config, "train"))
    assert prompts[0] == "a red circle"
    assert len(prompts) == 4


def test_prompts_of_the_user_win(tiny_config):
    config = tiny_config("data.source=folder", "training.prompts=('a red hat',)")
    assert grid_prompts(config, Captions("abc")) == ("a red hat",)
