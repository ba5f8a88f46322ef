"""Paraphrases say exactly the claim: they are read back here by a parser of its own."""

import random
import re
from itertools import pairwise

from lidit_jax.data.scenes import Claim, Group, SceneSource
from lidit_jax.data.scenes.paraphrases import paraphrase
from lidit_jax.data.scenes.vocabulary import OPPOSITES

NOUNS = {
    "heart shape": "heart",
    "crescent moon": "moon",
    "crescent": "moon",
    "five-pointed star": "star",
    "plus sign": "cross",
    "disc": "circle",
    "box": "square",
}
NOUNS |= {f"{noun}{'es' if noun == 'box' else 's'}": shape for noun, shape in NOUNS.items()}
for shape in ("circle", "square", "triangle", "star", "heart", "moon"):
    NOUNS |= {shape: shape, f"{shape}s": shape}
NOUNS |= {"cross": "cross", "crosses": "cross"}
COLORS = {
    name: name for name in ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
}
COLORS |= {"violet": "purple", "turquoise": "cyan"}
SIZES = {"small": "small", "little": "small", "tiny": "small"}
SIZES |= {"large": "large", "big": "large", "huge": "large"}
TEXTURES = {"solid": "solid", "plain": "solid", "without a pattern": "solid"}
TEXTURES |= {"striped": "striped", "with stripes": "striped", "covered in stripes": "striped"}
TEXTURES |= {"dotted": "dotted", "spotted": "dotted", "with dots": "dotted"}
TEXTURES |= {"covered in dots": "dotted"}
COUNTS = {"a pair of": 2, "two": 2, "2": 2, "three": 3, "3": 3, "four": 4, "4": 4}
KINDS = {"shape": NOUNS, "color": COLORS, "size": SIZES, "texture": TEXTURES, "count": COUNTS}
PLACES = {
    "left": ("left",),
    "right": ("right",),
    "above": ("above", "over", "higher than", "on top of", "at the top", "in the upper half"),
    "below": ("below", "under", "beneath", "underneath", "at the bottom", "in the lower half"),
}
PREPOSITION = r"left of|right of|left side of|right side of|above|over|higher than|on top of|" \
    r"below|under|beneath|underneath"  # fmt: skip


def words_of(text: str) -> list[tuple[str, str]]:
    """(kind, value) of every word that means something, in the order of the text."""
    known = {word: (kind, value) for kind, table in KINDS.items() for word, value in table.items()}
    pattern = "|".join(sorted(map(re.escape, known), key=len, reverse=True))
    return [known[found] for found in re.findall(rf"\b(?:{pattern})\b", text)]


def groups_of(text: str) -> list[Group]:
    """The groups that a text names: each begins with its article or number."""
    starts = [m.start() for m in re.finditer(
        r"\b(an?|one|a single|two|2|a pair of|three|3|four|4)\b(?! (pair|group|pattern|single))",
        text.replace("without a pattern", "without_pattern__"))]  # fmt: skip
    groups = []
    for begin, end in pairwise([*starts, len(text)]):
        words = words_of(text[begin:end])
        values = dict(words)
        assert len(values) == len(words), text[begin:end]
        if "shape" in values:  # "a photo of" has none
            groups.append(Group(**values))
    return groups


def direction(text: str) -> str:
    found = [name for name, words in PLACES.items() if any(word in text for word in words)]
    assert len(found) == 1, text
    return found[0]


def relation_of(text: str) -> str | None:
    """Where the group that is named first is, seen from the second; None if the text is silent."""
    if re.search(r"\b(to its|on its|above it|over it|below it|under it)\b", text):
        return OPPOSITES[direction(text[text.rindex(" a") :] if " a" in text else text)]
    if re.search(r"\b(on the (left|right)( side)?|at the (top|bottom)|in the (upper|lower) half)\b"
                 r"(?! (side )?of)", text):  # fmt: skip
        first = re.search(r"on the (left|right)|at the (top|bottom)|in the (upper|lower)", text)
        return direction(re.sub("in the upper", "in the upper half", first[0].replace(
            "in the lower", "in the lower half")))  # fmt: skip
    if not re.search(rf"\b({PREPOSITION})\b", text):
        return None
    found = re.search(rf"\b({PREPOSITION})\b", text)
    said = direction(found[0])
    # "Left of a star is a moon" names the reference first.
    return said if groups_of(text[: found.start()]) else OPPOSITES[said]


def test_paraphrases_say_exactly_the_claim():
    source = SceneSource(records=600, textured=0.3, sized=0.3)
    for index in range(len(source)):
        claim = source.scene(index).claim
        text = paraphrase(claim, random.Random(index)).lower().rstrip(".")
        groups = groups_of(text)
        assert sorted(map(str, groups)) == sorted(map(str, claim.groups)), text
        relation = relation_of(text)
        if claim.relation is None:
            assert relation is None, text
        else:
            same = groups[0] == claim.groups[0]
            assert relation == (claim.relation if same else OPPOSITES[claim.relation]), text


def test_one_claim_is_said_in_very_many_ways():
    claim = Claim((Group("circle", "red", size="small"), Group("moon", "blue")), "above")
    said = {paraphrase(claim, random.Random(seed)) for seed in range(500)}
    assert len(said) > 400
    joined = " | ".join(said)
    for words in ("that is red", "tiny", "crescent", "under", "at the top", "A ", "below it"):
        assert words in joined


def test_a_sentence_that_begins_with_a_place_stands_alone():
    """Nobody says "a photo of below a star is a moon"."""
    said = [
        paraphrase(Claim((Group("circle", "red"), Group("moon", "blue")), relation), rng).lower()
        for relation in PLACES
        for rng in map(random.Random, range(1000))
    ]
    frames = "a photo of|a picture of|an image of|a drawing of|there is|there are|draw|please draw"
    framed = re.compile(rf"^(?:{frames}|show me|i want|a picture that shows) (.*)")
    found = [match[1] for text in said if (match := framed.match(text))]
    assert len(found) > 1000
    assert {text.split()[0] for text in found} <= {"a", "an", "one"}
    assert any(text.startswith(("below ", "at the top ", "to the left of ")) for text in said)


def test_half_of_varied_captions_are_paraphrases_and_pictures_stay():
    plain, varied = SceneSource(records=300), SceneSource(records=300, varied=True)
    changed = sum(plain.caption(i) != varied.caption(i) for i in range(300))
    assert 0.3 < changed / 300 < 0.6
    assert all(plain.scene(i) == varied.scene(i) for i in range(20))
    assert repr(plain) != repr(varied)
    chinese = SceneSource(records=50, varied=True, language="zh")
    assert not any(c.isascii() and c.isalpha() for i in range(50) for c in chinese.caption(i))


def test_shares_of_textures_and_sizes():
    def share(source: SceneSource, name: str) -> float:
        claims = [source.scene(i).claim for i in range(len(source))]
        named = [any(getattr(group, name) for group in claim.groups) for claim in claims]
        return sum(named) / len(named)

    source = SceneSource(records=400, textured=0.6, sized=0.0)
    # Binomial: three standard deviations of 400 draws of 0.6.
    assert abs(share(source, "texture") - 0.6) < 3 * (0.6 * 0.4 / 400) ** 0.5
    assert share(source, "size") == 0
