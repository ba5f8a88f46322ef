"""Captions say exactly the claim, in English and in Chinese."""

import random

import pytest

from lidit_jax.data.scenes import Claim, Group, SceneSource, caption
from lidit_jax.data.scenes.captions import noun_phrase
from lidit_jax.data.scenes.vocabulary import CHINESE, COLORS, SHAPES, TEXTURES
from lidit_jax.errors import LiditError

RED_CIRCLE, BLUE_SQUARE = Group("circle", "red"), Group("square", "blue")


def variants(claim: Claim, language: str = "en") -> set[str]:
    return {caption(claim, random.Random(seed), language) for seed in range(200)}


@pytest.mark.parametrize(
    ("group", "english", "chinese"),
    [
        (RED_CIRCLE, "a red circle", "一个红色的圆形"),
        (Group("star", "orange"), "an orange star", "一个橙色的五角星"),
        (Group("star", "green", count=3), "three green stars", "三个绿色的五角星"),
        (Group("cross", size="small", count=2), "two small crosses", "两个小十字形"),
        (
            Group("heart", "pink", "striped", "large"),
            "a large striped pink heart",
            "一个粉色条纹的大心形",
        ),
    ],
)
def test_noun_phrases(group, english, chinese):
    assert noun_phrase(group, "en") == english
    assert noun_phrase(group, "zh") == chinese


def test_a_claim_has_several_natural_phrasings():
    phrasings = variants(Claim((RED_CIRCLE,)))
    assert {"a red circle", "a photo of a red circle", "there is a red circle"} <= phrasings
    assert "there are two stars" in variants(Claim((Group("star", count=2),)))
    assert "a red circle and a blue square" in variants(Claim((RED_CIRCLE, BLUE_SQUARE)))
    relation = Claim((RED_CIRCLE, BLUE_SQUARE), "left")
    assert "a red circle to the left of a blue square" in variants(relation)
    assert "一个红色的圆形在一个蓝色的正方形的左边" in variants(relation, "zh")
    three = Claim((RED_CIRCLE, BLUE_SQUARE, Group("star", "pink")))
    assert "a red circle, a blue square and a pink star" in variants(three)


def test_captions_name_all_that_is_claimed_and_nothing_else():
    source = SceneSource(records=400)
    words = (*COLORS, *SHAPES, *TEXTURES, "small", "large")
    for index in range(len(source)):
        text = source.caption(index)
        groups = source.scene(index).claim.groups
        claimed = {v for g in groups for v in (g.color, g.shape, g.texture, g.size) if v}
        assert {word for word in words if word in text} == claimed
        assert len(text.split()) <= 20


def test_chinese_captions_name_the_same_things():
    source = SceneSource(records=200, language="zh")
    for index in range(len(source)):
        text = source.caption(index)
        assert not any(letter.isascii() and letter.isalpha() for letter in text)
        for group in source.scene(index).claim.groups:
            assert CHINESE[group.shape] in text
            assert group.color is None or CHINESE[group.color] in text


def test_both_languages_are_mixed():
    source = SceneSource(records=60, language="both")
    english = sum(source.caption(index).isascii() for index in range(60))
    assert 15 < english < 45


def test_an_unknown_language_is_refused():
    with pytest.raises(LiditError, match="en, zh"):
        caption(Claim((RED_CIRCLE,)), random.Random(0), "de")
