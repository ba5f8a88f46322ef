"""What kind of text a caption is."""

import pytest

from lidit_jax.data.caption_flags import CaptionFlag, caption_flags

LATIN, HAN, OTHER = CaptionFlag.LATIN, CaptionFlag.HAN, CaptionFlag.OTHER
URL, TAGS, FEW = CaptionFlag.URL, CaptionFlag.TAGS, CaptionFlag.FEW_LETTERS

CAPTIONS = {
    "a red circle on the left of a blue square": LATIN,
    "A cat, a dog and a bird. They sit on a U.S. mailbox.": LATIN,
    "a photo of a café in Łódź": LATIN,
    "Version 2.0 of the poster": LATIN,
    "一个红色的圆形": HAN,
    "红色，蓝色，绿色，黄色，黑色的圆形": HAN,
    "красный круг": OTHER,
    "赤い丸と青い四角があります": OTHER,
    "लाल वृत्त": OTHER,
    "วงกลมสีแดง": OTHER,
    "buy it at https://example.org/a?b=1": LATIN | URL,
    "WWW.EXAMPLE.COM": LATIN | URL,
    "photo from example.com": LATIN | URL,
    "cheap shoes shop.co.uk today": LATIN | URL,
    "<b>cat</b> in a hat": LATIN | TAGS,
    "cats &amp; dogs": LATIN | TAGS,
    "sunset #beach #holiday": LATIN | TAGS,
    "the player with the number #1": LATIN,
    "beach, sunset, sea, holiday, blue sky": LATIN | TAGS,
    "a man, a woman, a dog, a tree and a house stand there": LATIN,
    "DSC 01234 5678 (2)": LATIN | FEW,
    "12345": FEW,
    "!!! ??? ---": FEW,
    "": CaptionFlag.EMPTY,
    " \ufeff\n\t ": CaptionFlag.EMPTY,
}


@pytest.mark.parametrize("text", CAPTIONS)
def test_each_kind(text):
    assert CaptionFlag(caption_flags(text)) == CAPTIONS[text]


def test_flags_fit_a_byte():
    assert sum(CaptionFlag) < 256


def test_a_damaged_text_is_judged_by_the_rest():
    assert CaptionFlag(caption_flags("half \ud83d of it")) == LATIN
