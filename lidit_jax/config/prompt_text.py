"""Cleaning of prompts and captions before encoding; damaged text is refused."""

from __future__ import annotations

from lidit_jax.config.text import broken_characters, clean_text
from lidit_jax.errors import LiditError

_SHOWN = 60


def prompt_text(where: str, text: str) -> str:
    """Return a prompt or caption cleaned for encoders.

    Args:
      where: what the text is or its location, for the message.
      text: the original text.

    Raises:
      LiditError: when it holds a lone surrogate (half of a character).
    """
    if broken := broken_characters(text):
        shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
        raise LiditError(
            f"{where}: {shown!r} contains half of a character ({broken[0]!r}): "
            "write the text again, in UTF-8"
        )
    return clean_text(text)
