"""What the instruction's cache and narrow weights bring a frozen language model.

    python -m tests.benchmarks.encode_prompts [--encoder smollm2] [--tokens 20,50,100] [--batch 8]

Both ways of encoding (the whole sequence; only the tokens after the instruction) take turns on the
same prompts, so that a machine that changes its speed changes it for both. `speed-up` is the median
over the rounds of one time over the other, `token` the largest error of a token (the length of its
difference over the length of its features), `value` the largest difference over the features' rms.
A second table compares the features of bfloat16 and int8 weights with those of float32.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np

from lidit_jax import encoders
from lidit_jax.encoders import PromptFormat, TextEncoder, TokenBatch


def prompts_of(encoder: TextEncoder, tokens: int, batch: int) -> TokenBatch:
    """Rows of instruction, exactly `tokens` prompt tokens and the end token."""
    words = " ".join(f"{count} red circles above a blue square," for count in range(40))
    rows = encoder.tokenize([words] * batch, max_prompt_tokens=tokens)
    assert rows.ids.shape[1] == rows.prefix_length + tokens + 1
    return rows


def seconds_of(work: Callable[[], jax.Array]) -> float:
    """Time of one call, its result included."""
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start


def compare_cache(encoder: TextEncoder, lengths: list[int], batch: int, repeats: int) -> None:
    """Prints the table of the instruction's cache."""
    layer = encoder.default_layer
    prefix = encoder.prefix_cache(encoder.params, PromptFormat(), layer)
    print(f"{encoder.name}, {encoder.dtype}, {batch} prompts at once, medians of {repeats}")
    print("| prompt tokens | instruction | whole s | cached s | speed-up | token | value |")
    print("|---|---|---|---|---|---|---|")
    for length in lengths:
        tokens = prompts_of(encoder, length, batch)

        def whole(tokens: TokenBatch = tokens) -> jax.Array:
            return encoder.encode(tokens, layer)

        def cached(tokens: TokenBatch = tokens) -> jax.Array:
            return encoder.encode(tokens, layer, prefix)

        reference, ours = (np.asarray(work(), np.float64) for work in (whole, cached))
        apart = ours - reference
        value = np.abs(apart).max() / np.sqrt(np.mean(reference**2))
        token = (np.linalg.norm(apart, axis=-1) / np.linalg.norm(reference, axis=-1)).max()
        pairs = [(seconds_of(whole), seconds_of(cached)) for _ in range(repeats)]
        medians = [statistics.median(times) for times in zip(*pairs, strict=True)]
        speedup = statistics.median(a / b for a, b in pairs)
        print(
            f"| {length} | {tokens.prefix_length} | {medians[0]:.3f} | {medians[1]:.3f} "
            f"| {speedup:.2f} | {token:.1e} | {value:.1e} |"
        )


def compare_types(source: str, length: int, batch: int) -> None:
    """Prints the table of the weights' types."""
    print("\n| weights | MB | smallest cosine of a token | mean cosine | relative rms |")
    print("|---|---|---|---|---|")
    reference = None
    for dtype in ("float32", "bfloat16", "int8"):
        encoder = encoders.load(source, dtype=dtype)
        tokens = prompts_of(encoder, length, batch)
        features = np.asarray(encoder.encode(tokens, encoder.default_layer), np.float64)
        reference = features if reference is None else reference
        lengths = np.linalg.norm(features, axis=-1) * np.linalg.norm(reference, axis=-1)
        cosine = (features * reference).sum(-1) / lengths
        rms = np.linalg.norm(features - reference) / np.linalg.norm(reference)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(encoder.params)) / 1e6
        print(f"| {dtype} | {size:.0f} | {cosine.min():.5f} | {cosine.mean():.5f} | {rms:.4f} |")


def main() -> None:
    """Prints both tables, in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="smollm2")
    parser.add_argument("--dtype", default="float32", help="of the first table")
    parser.add_argument("--tokens", default="20,50,100")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    lengths = [int(length) for length in arguments.tokens.split(",")]
    encoder = encoders.load(arguments.encoder, dtype=arguments.dtype)
    compare_cache(encoder, lengths, arguments.batch, arguments.repeats)
    compare_types(arguments.encoder, lengths[-1], arguments.batch)


if __name__ == "__main__":
    main()
