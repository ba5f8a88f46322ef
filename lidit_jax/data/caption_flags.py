"""What kind of text a caption is, as bits that an index stores: web addresses, tags, scripts."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from enum import IntFlag

from lidit_jax.config.text import clean_text


class CaptionFlag(IntFlag):
    """Bits of a caption; they fit eight bits. At most one of the scripts is set."""

    EMPTY = 1
    """Nothing is left once it is cleaned."""
    URL = 2
    """It holds a web address."""
    TAGS = 4
    """It is markup, hashtags, or a list of keywords rather than a text."""
    FEW_LETTERS = 8
    """Less than half of its characters are letters, spaces left aside."""
    LATIN = 16
    """Most of its letters are Latin."""
    HAN = 32
    """Most of its letters are Chinese characters."""
    OTHER = 64
    """Most of its letters are of other scripts."""


_URL = re.compile(
    r"\b(?:https?|ftp)://|\bwww\.\S|"
    r"\b[a-z0-9-]+\.(?:com|net|org|info|biz|co\.[a-z]{2}|de|fr|ru|cn|jp|uk|eu|io)(?:/|\b(?!\.\w))",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"</?[a-z][^<>]*>|&(?:[a-z]+|#\d+);|\[/?(?:url|img|b|i)\b[^\]]*\]", re.I)
_HASHTAG = re.compile(r"(?:^|\s)[#@]\w")
_BETWEEN_KEYWORDS = re.compile(r"[,;|，、；]")
_HASHTAGS, _KEYWORDS, _KEYWORD_CHARACTERS = 2, 5, 24
"""How many hashtags, or keywords in a row, make a caption a list; longer ones are clauses."""
_HAN = re.compile("[々〇\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af]")
_LATIN = re.compile(
    "[A-Za-zªº\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02af\u1d00-\u1d25\u1e00-\u1eff\u2c60-\u2c7f"
    "\ua722-\ua787\uff21-\uff3a\uff41-\uff5a]"
)


def caption_flags(text: str) -> int:
    """The bits of `CaptionFlag` that hold for a caption.

    Args:
      text: as it was written; it is cleaned first.
    """
    text = clean_text(text)
    if not text:
        return int(CaptionFlag.EMPTY)
    letters, others = _letters(text)
    flags = CaptionFlag(0)
    # Most captions lack the characters that these patterns begin with: they need no search.
    if "." in text or "://" in text:
        flags |= CaptionFlag.URL if _URL.search(text) else 0
    if _has_markup(text) or _is_list(text):
        flags |= CaptionFlag.TAGS
    if letters < others:
        flags |= CaptionFlag.FEW_LETTERS
    return int(flags | _script(text, letters))


def _has_markup(text: str) -> bool:
    """Whether a text holds tags of HTML or of forums, or several hashtags."""
    if ("<" in text or "&" in text or "[" in text) and _MARKUP.search(text):
        return True
    marks = text.count("#") + text.count("@")
    return marks >= _HASHTAGS and len(_HASHTAG.findall(text)) >= _HASHTAGS


def _is_list(text: str) -> bool:
    """Whether a text is keywords with commas between them, each of one or two words."""
    keywords = [word.strip() for word in _BETWEEN_KEYWORDS.split(text.rstrip(" .,;|"))]
    return len(keywords) >= _KEYWORDS and all(
        len(word) <= _KEYWORD_CHARACTERS and word.count(" ") < 2 and not _HAN.search(word)
        for word in keywords
    )


def _letters(text: str) -> tuple[int, int]:
    """How many characters are letters, their marks included, and how many are not, without spaces.

    Marks are a third of the characters of Hindi or Thai.
    """
    kinds = Counter(map(unicodedata.category, text))
    letters = sum(count for kind, count in kinds.items() if kind[0] in "LM")
    spaces = sum(count for kind, count in kinds.items() if kind[0] == "Z")
    return letters, len(text) - letters - spaces


def _script(text: str, letters: int) -> CaptionFlag:
    if not letters:
        return CaptionFlag(0)
    if text.isascii():
        return CaptionFlag.LATIN
    latin, han = len(_LATIN.findall(text)), len(_HAN.findall(text))
    counts = {
        CaptionFlag.LATIN: latin,
        CaptionFlag.HAN: han,
        CaptionFlag.OTHER: letters - latin - han,
    }
    return max(counts, key=lambda script: counts[script])
