"""What a run reads from elsewhere, found in its recipe and arguments without running them."""

from types import SimpleNamespace

import pytest

RECIPE = """
import somewhere_that_is_not_installed

CHOICES = Choices(
    variants={
        "large": {"training.init_from": "gs://bucket/runs/small", "data.image_size": 512},
        "other": {"training.init_from": "runs/other"},
    }
)

def get_config():
    config = default_config()
    config.data.path = "/gcs/pictures/cats"
    config.encoders.sources = ("smollm2", "~/my-llm")
    config.vae.source = os.environ["VAE"]
    return config
"""


@pytest.fixture
def inputs_of(repository, monkeypatch, tmp_path):
    """`inputs_of(*arguments)` in a checkout with the recipe above."""
    monkeypatch.syspath_prepend(repository / "launch")
    from launcher.inputs import inputs_of
    from launcher.job import Job

    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.py").write_text(RECIPE)
    checkout = SimpleNamespace(root=tmp_path)
    return lambda *arguments: inputs_of(Job("n", ("train", *arguments)), checkout)


@pytest.mark.parametrize("recipe", ["configs/mine.py", "mine"])
def test_a_recipe_s_literal_values_are_read_and_computed_ones_left_to_it(inputs_of, recipe):
    assert inputs_of(f"--config={recipe}") == [
        ("data.path", "/gcs/pictures/cats"),
        ("encoders.sources", "smollm2"),
        ("encoders.sources", "~/my-llm"),
    ]


def test_a_choice_counts_where_it_is_chosen(inputs_of):
    chosen = inputs_of("--config=mine:large")
    assert ("training.init_from", "gs://bucket/runs/small") in chosen


def test_the_command_line_has_the_last_word(inputs_of):
    found = inputs_of(
        "--config=mine:other",
        "--config.data.path=first",
        "--config.data.path",
        "last",
        "--config.encoders.sources=['a/b']",
        "--config.training.init_from=",
    )
    assert found == [("data.path", "last"), ("encoders.sources", "a/b")]


def test_buckets_named_in_the_recipe_are_mounted_too(inputs_of):
    from launcher.inputs import buckets_to_mount
    from launcher.job import Job

    job = Job("n", ("train", "--config=mine", "--workdir=gs://b/r", "--config.x=/gcs/models/llm"))
    assert buckets_to_mount(job, inputs_of("--config=mine")) == ["models", "pictures"]
