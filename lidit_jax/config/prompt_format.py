"""Input text of the language models: instruction, layout and the batch of tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32

INSTRUCTION = (
    "Describe the image by detailing the color, shape, size, texture, quantity, text, and spatial "
    "relationships of the objects:"
)
"""The paper's instruction (section 3.1), with the colon of its figures 4 and 5."""


@dataclass(frozen=True)
class PromptFormat:
    """Three-line layout of the paper's figures 4 and 5; an empty line is left out."""

    instruction: str = INSTRUCTION
    """Second line. Empty: the "no instruction" ablation (table 4)."""
    system_prompt: str = ""
    """First line, whose content the paper never gives."""
    lowercase: bool = False
    """Turn prompts, not the other lines, into lower case."""

    @property
    def prefix(self) -> str:
        """Return the text before the prompt, each line ended by a line break."""
        return "".join(f"{line}\n" for line in (self.system_prompt, self.instruction) if line)


@dataclass(frozen=True)
class TokenBatch:
    """Prompts as token ids, the input of an encoder."""

    ids: Int32[np.ndarray, "B S"]
    """Instruction, prompt, one end token, padding."""
    mask: Bool[np.ndarray, "B S"]
    """True for real tokens, False for padding."""
    prefix_length: int
    """Leading tokens before the prompt (begin token and instruction), equal in every row; under
    right padding `features[:, prefix_length:]` are the prompt and its end token."""
    truncated: int
    """Prompts that were cut to `max_prompt_tokens`."""
