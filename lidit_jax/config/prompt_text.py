"""Texts that are fit for encoders: cleaned, and refused where they are damaged."""

from __future__ import annotations

from lidit_jax.config.text import broken_characters, clean_text
from lidit_jax.errors import LiditError

_SHOWN = 60


def prompt_text(where: str, text: str) -> str:
    """A prompt or caption as encoders are to read it.

    Args:
      where: what the text is or stands in, for the message.
      text: as it was written.

    Raises:
      LiditError: when it holds half of a character.
    """
    if broken := broken_characters(text):
        shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
        raise LiditError(
            f"{where}: {shown!r} is damaged, {broken[0]!r} is half of a character: "
            "write the text anew, in UTF-8"
        )
    return clean_text(text)
