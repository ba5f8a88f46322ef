"""Captions of claims from parallel English and Chinese templates."""

from __future__ import annotations

import random

from lidit_jax.data.scenes.scene import Claim, Group
from lidit_jax.data.scenes.vocabulary import CHINESE, LANGUAGES
from lidit_jax.errors import LiditError

_NUMBERS = {"en": ("", "a", "two", "three", "four"), "zh": ("", "一", "两", "三", "四")}
_FRAMES = {
    "en": ("{}", "{}", "{}", "a photo of {}", "a picture of {}", "an image of {}", "there {is} {}"),
    "zh": ("{}", "{}", "{}", "一张有{}的照片", "一幅有{}的图片", "画面里有{}", "图中有{}"),
}
_PAIRS = {"en": ("{} and {}", "{} and {}", "{} with {}"), "zh": ("{}和{}", "{}和{}", "{}与{}")}
_RELATIONS = {
    "en": {
        "left": ("{} to the left of {}", "{} left of {}", "{} on the left of {}"),
        "right": ("{} to the right of {}", "{} right of {}", "{} on the right of {}"),
        "above": ("{} above {}", "{} above {}", "{} over {}"),
        "below": ("{} below {}", "{} below {}", "{} under {}"),
    },
    "zh": {
        "left": ("{}在{}的左边", "{}在{}左侧"),
        "right": ("{}在{}的右边", "{}在{}右侧"),
        "above": ("{}在{}的上方", "{}在{}上面"),
        "below": ("{}在{}的下方", "{}在{}下面"),
    },
}


def caption(claim: Claim, rng: random.Random, language: str = "en") -> str:
    """Return a caption that states `claim`.

    Args:
      claim: content of the caption; the order of mention is the order of its groups.
      rng: chooses the template.
      language: "en" or "zh".

    Raises:
      LiditError: for another language.
    """
    if language not in LANGUAGES:
        raise LiditError(f"caption language {language!r}: choose one of {', '.join(LANGUAGES)}")
    phrases = [noun_phrase(group, language) for group in claim.groups]
    frame = rng.choice(_FRAMES[language])
    if claim.relation:
        body = rng.choice(_RELATIONS[language][claim.relation]).format(*phrases)
        # "A photo of a circle above a square" reads well; in Chinese the relation is a sentence.
        frame = frame if language == "en" else "{}"
    elif len(phrases) == 2:
        body = rng.choice(_PAIRS[language]).format(*phrases)
    else:
        body = _list(phrases, language)
    verb = "are" if claim.groups[0].count > 1 else "is"
    return frame.replace("{is}", verb).format(body)


def noun_phrase(group: Group, language: str = "en") -> str:
    """Return the words for a group: "three small striped red stars", "三个红色条纹的小五角星"."""
    number = _NUMBERS[language][group.count]
    if language == "zh":
        marks = "".join(CHINESE[word] for word in (group.color, group.texture) if word)
        size = CHINESE[group.size] if group.size else ""
        return f"{number}个{marks}{'的' if marks else ''}{size}{CHINESE[group.shape]}"
    noun = group.shape
    if group.count > 1:
        noun += "es" if noun.endswith("ss") else "s"
    words = [word for word in (group.size, group.texture, group.color) if word]
    words.append(noun)
    if number == "a" and words[0][0] in "aeiou":
        number = "an"
    return " ".join([number, *words])


def _list(phrases: list[str], language: str) -> str:
    comma, last = (", ", " and ") if language == "en" else ("、", "和")
    return last.join([comma.join(phrases[:-1]), phrases[-1]]) if len(phrases) > 1 else phrases[0]
