"""One cleaning of texts: what looks the same is read the same, and what is clean stays as it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lidit_jax.config.prompt_text import prompt_text
from lidit_jax.config.text import clean_text, split_lines
from lidit_jax.encoders.tokenizer_probes import PROBE_PROMPTS
from lidit_jax.errors import LiditError


@pytest.mark.parametrize(
    "text",
    [
        "a red circle\n",
        " a  red\tcircle",
        "\ufeffa red circle",
        "a red\ufeff circle",
        "a red\u2028circle",
        "a\r\nred\x00circle\x7f",
        "a\u00a0red\u3000circle\u2029",
    ],
)
def test_what_looks_like_a_red_circle_is_a_red_circle(text):
    assert clean_text(text) == "a red circle"


def test_characters_are_composed():
    assert clean_text("cafe\u0301, cafe\ufeff\u0301, \u212b") == "café, café, Å"


@pytest.mark.parametrize("text", ["a red circle", "👩‍👩‍👧‍👦 蓝色", "ﬁne ½ zero\u200bwidth", ""])
def test_a_clean_text_stays_as_it_is(text):
    assert clean_text(text) == text


@given(st.text())
def test_cleaning_twice_is_cleaning_once(text):
    once = clean_text(text)
    assert clean_text(once) == once
    assert once == " ".join(once.split())


def test_lines_end_at_line_feeds_alone():
    content = "\ufeffa\r\nb\u2028b\n\ufeffc\x0bc\x85\rc\n\n".encode()
    assert split_lines(content) == ["a", "b\u2028b", "c\x0bc\x85\rc", "", ""]


def test_half_a_character_is_refused_and_a_whole_one_is_not():
    with pytest.raises(LiditError, match=r"here: 'a cat \\ud83d' contains half of a character"):
        prompt_text("here", "a cat \ud83d")
    for text in PROBE_PROMPTS:
        assert prompt_text("here", text) == clean_text(text)
