"""Varied English captions of a claim, so that a model does not overfit to templates.

A plain caption puts every adjective before its noun and states a relation from its first object.
People also write: "a heart that is pink", "to the left of the star is a moon", "2 big circles".
"""

from __future__ import annotations

import random
from types import MappingProxyType

from lidit_jax.data.scenes.scene import Claim, Group
from lidit_jax.data.scenes.vocabulary import OPPOSITES

Words = tuple[str, ...]

_SHAPES: MappingProxyType[str, Words] = MappingProxyType(
    {
        "circle": ("circle", "circle", "circle", "disc"),
        "square": ("square", "square", "square", "box"),
        "triangle": ("triangle",),
        "star": ("star", "star", "star", "five-pointed star"),
        "heart": ("heart", "heart", "heart", "heart shape"),
        "cross": ("cross", "cross", "cross", "plus sign"),
        "moon": ("moon", "moon", "crescent", "crescent moon"),
    }
)
_COLORS: MappingProxyType[str, Words] = MappingProxyType(
    {"purple": ("purple", "purple", "purple", "violet"), "cyan": ("cyan", "cyan", "turquoise")}
)
_SIZES: MappingProxyType[str, Words] = MappingProxyType(
    {"small": ("small", "small", "little", "tiny"), "large": ("large", "large", "big", "huge")}
)
_TEXTURES: MappingProxyType[str, Words] = MappingProxyType(
    {"solid": ("solid", "plain"), "striped": ("striped",), "dotted": ("dotted", "spotted")}
)
_PATTERNS: MappingProxyType[str, Words] = MappingProxyType(
    {
        "solid": ("without a pattern",),
        "striped": ("with stripes", "covered in stripes"),
        "dotted": ("with dots", "covered in dots"),
    }
)
_NUMBERS: MappingProxyType[int, Words] = MappingProxyType(
    {
        2: ("two", "two", "2", "a pair of", "exactly two"),
        3: ("three", "three", "3", "exactly three", "a group of three"),
        4: ("four", "four", "4", "exactly four", "a group of four"),
    }
)
_PREPOSITIONS: MappingProxyType[str, Words] = MappingProxyType(
    {
        "left": ("to the left of", "left of", "on the left of", "on the left side of"),
        "right": ("to the right of", "right of", "on the right of", "on the right side of"),
        "above": ("above", "above", "over", "higher than", "on top of"),
        "below": ("below", "below", "under", "beneath", "underneath"),
    }
)
_PLACES: MappingProxyType[str, Words] = MappingProxyType(
    {
        "left": ("on the left", "on the left side"),
        "right": ("on the right", "on the right side"),
        "above": ("at the top", "in the upper half"),
        "below": ("at the bottom", "in the lower half"),
    }
)
_AROUND: MappingProxyType[str, Words] = MappingProxyType(
    {
        "left": ("to its left", "on its left"),
        "right": ("to its right", "on its right"),
        "above": ("above it", "over it"),
        "below": ("below it", "under it"),
    }
)
_STARTS_WITH_A_PLACE = tuple(
    word for table in (_PREPOSITIONS, _PLACES) for words in table.values() for word in words
)
_JOINTS: Words = ("{} and {}", "{} and {}", "{} with {}", "{} next to {}", "{} together with {}")
_FRAMES: Words = (
    *("{}",) * 6,
    "a photo of {}",
    "a picture of {}",
    "an image of {}",
    "a drawing of {}",
    "there {is} {}",
    "draw {}",
    "please draw {}",
    "show me {}",
    "I want {}",
    "a picture that shows {}",
)
_CAPITALIZED, _STOPPED = 0.2, 0.15
"""Shares of sentences that begin with a capital letter, and that end with a period."""


def paraphrase(claim: Claim, rng: random.Random) -> str:
    """Return a random English paraphrase of `claim`, with exactly the same content.

    Args:
      claim: content of the caption. Its groups may be named in another order.
      rng: chooses the words.
    """
    body = _related(claim, claim.relation, rng) if claim.relation else _listed(claim, rng)
    frame = rng.choice(_FRAMES)
    if body.startswith(_STARTS_WITH_A_PLACE):  # "a photo of below a star is a moon" is not English
        frame = "{}"
    verb = "are" if claim.groups[0].count > 1 and not body.startswith("a ") else "is"
    sentence = frame.replace("{is}", verb).format(body)
    if rng.random() < _CAPITALIZED:
        sentence = sentence[0].upper() + sentence[1:]
    return sentence + ("." if rng.random() < _STOPPED else "")


def _listed(claim: Claim, rng: random.Random) -> str:
    phrases = [_phrase(group, rng) for group in claim.groups]
    if len(phrases) == 1:
        return phrases[0]
    if len(phrases) == 2:
        return rng.choice(_JOINTS).format(*phrases)
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def _related(claim: Claim, relation: str, rng: random.Random) -> str:
    first, second = claim.groups
    if rng.random() < 0.5:
        first, second, relation = second, first, OPPOSITES[relation]
    a, b = _phrase(first, rng), _phrase(second, rng)
    preposition = rng.choice(_PREPOSITIONS[relation])
    draw = rng.random()
    if draw < 0.55:
        return f"{a} {preposition} {b}"
    if draw < 0.65 and " that " not in a:
        return f"{a} that is {preposition} {b}"
    if draw < 0.75:
        return f"{preposition} {b} {rng.choice(('is', 'there is'))} {a}"
    if draw < 0.85:
        return f"{b} {rng.choice(('with', 'and'))} {a} {rng.choice(_AROUND[relation])}"
    place, other = rng.choice(_PLACES[relation]), rng.choice(_PLACES[OPPOSITES[relation]])
    return rng.choice((f"{a} {place} and {b} {other}", f"{place} {a}, {other} {b}"))


def _phrase(group: Group, rng: random.Random) -> str:
    """Return a noun phrase of a group, with adjectives before or after the noun."""
    noun = rng.choice(_SHAPES[group.shape])
    before, after, told = [], [], []
    if group.size:
        (told if rng.random() < 0.15 else before).append(rng.choice(_SIZES[group.size]))
    if group.texture:
        if rng.random() < 0.3:
            after.append(rng.choice(_PATTERNS[group.texture]))
        else:
            before.append(rng.choice(_TEXTURES[group.texture]))
    if group.color:
        word = rng.choice(_COLORS.get(group.color, (group.color,)))
        (told if rng.random() < 0.2 else before).append(word)
    several = group.count > 1
    words = [*before, _plural(noun) if several else noun, *after]
    if told:
        words.append(f"that {'are' if several else 'is'} {' and '.join(told)}")
    if several:
        return " ".join([rng.choice(_NUMBERS[group.count]), *words])
    one = rng.choice(("one", "a single")) if rng.random() < 0.05 else _article(words[0])
    return " ".join([one, *words])


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _plural(noun: str) -> str:
    return noun + ("es" if noun.endswith(("ss", "x")) else "s")
