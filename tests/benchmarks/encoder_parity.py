"""How far every family of text encoders is from transformers, as a table in Markdown.

    python -m tests.benchmarks.encoder_parity [--families llama,clip]

The models are tiny and random, with odd shapes, norms and biases that matter, and windows shorter
than the prompts. Four prompts, padded on the right and on the left; all layers. An error is the
largest difference in a layer over the rms of the layer, in the worst of them: "float32" of ours
from transformers in float64, "theirs" of transformers in float32 from the same, "float64" of both.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from lidit_jax import encoders
from tests.encoders.conftest import padded_on_both_sides, save_tiny
from tests.encoders.parity import (
    error,
    exact_states,
    our_exact_states,
    our_states,
    reference_states,
)
from tests.encoders.tiny_models import FAMILIES


def row(family: str) -> str:
    """The line of a family: reference, layers, and the errors in float32 and float64."""
    with tempfile.TemporaryDirectory() as folder:
        model = save_tiny(family, Path(folder))
        encoder = encoders.load(folder)
        tokens = padded_on_both_sides(encoder)
        exact = exact_states(model, tokens, encoder.tokenizer.pad)
        theirs = reference_states(model, tokens, encoder.tokenizer.pad)[:, tokens.mask]
        ours, wide = our_states(encoder, tokens), our_exact_states(encoder, tokens)
    assert ours.dtype == theirs.dtype == np.float32
    errors = " | ".join(f"{error(states, exact):.1e}" for states in (ours, theirs, wide))
    return f"| {family} | `{type(model).__name__}` | {len(exact)} | {errors} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", default=",".join(FAMILIES))
    names = parser.parse_args().families.split(",")
    torch.set_num_threads(1)
    print("| family | reference | layers | float32 | theirs | float64 |")
    print("|---|---|---|---|---|---|")
    for family in names:
        print(row(family), flush=True)


if __name__ == "__main__":
    main()
