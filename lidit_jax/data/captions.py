"""The captions of a run: read from its sources, then encoded or only tokenized."""

from __future__ import annotations

import functools
import itertools
import json
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from lidit_jax.data.cache import content_key, writable_cache_folder
from lidit_jax.data.caption_tokens import CaptionTokens, tokenize_captions
from lidit_jax.data.image_source import ImageSource, captions_of
from lidit_jax.data.text_features import TextFeatures, prepare_text_features
from lidit_jax.encoders.conditions import PromptEncoders
from lidit_jax.io.output import atomic_file
from lidit_jax.io.progress import progress_bar

_PATIENCE = 4.0
"""Seconds that this process makes captions by itself; for more, others have to be started."""
_CHUNK = 2000
_PROBED = 200


def read_captions(source: ImageSource, folder: Path, workers: int = 0) -> list[str]:
    """The distinct captions of a source, kept under `folder` because making them takes a while.

    Args:
      source: of the captions.
      folder: parent of all prepared data.
      workers: processes that share what would take this one more than a few seconds.

    Returns:
      Those of its first `source.distinct_captions` records, in their order.
    """
    count = source.distinct_captions
    file = folder / f"{content_key('captions', {'source': repr(source)})}.json"
    if file.is_file():
        return json.loads(file.read_text())[:count]  # version 0.1 kept one of every record
    begun = time.perf_counter()
    captions = captions_of(source, range(min(count, _PROBED)))
    left = count - len(captions)
    seconds = (time.perf_counter() - begun) / len(captions) * left
    parts = [range(i, min(i + _CHUNK, count)) for i in range(len(captions), count, _CHUNK)]
    make = functools.partial(captions_of, source)
    if workers and seconds > _PATIENCE:
        processes = min(workers, len(parts))
        with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
            captions += itertools.chain.from_iterable(pool.map(make, parts))
    else:
        captions += itertools.chain.from_iterable(map(make, parts))
    with writable_cache_folder(folder), atomic_file(file) as handle:
        handle.write(json.dumps(captions).encode())
    return captions


def encoded_captions(
    encoders: PromptEncoders, captions: Sequence[str], folder: Path
) -> list[TextFeatures]:
    """Features of every stream, computed now or found under `folder`.

    Args:
      encoders: one a stream.
      captions: without repetitions; a caption's place is its id.
      folder: parent of all prepared data.
    """
    streams = []
    for stream, layer in zip(encoders.streams, encoders.layers, strict=True):
        with progress_bar(f"encoding captions with {stream.name}") as progress:
            streams.append(
                prepare_text_features(
                    stream,
                    captions,
                    encoders.prompt_format,
                    layer,
                    encoders.max_prompt_tokens,
                    folder,
                    progress,
                )
            )
    _tell_cuts(streams)
    return streams


def tokenized_captions(encoders: PromptEncoders, captions: Sequence[str]) -> list[CaptionTokens]:
    """Tokens of every stream, to be encoded while training.

    Args:
      encoders: one a stream.
      captions: without repetitions; a caption's place is its id.
    """
    streams = [
        tokenize_captions(stream, captions, encoders.prompt_format, encoders.max_prompt_tokens)
        for stream in encoders.streams
    ]
    _tell_cuts(streams)
    return streams


def _tell_cuts(streams: Sequence[TextFeatures | CaptionTokens]) -> None:
    for stream in streams:
        if stream.truncated:
            print(
                f"{stream.truncated} captions exceed config.encoders.max_prompt_tokens: their ends "
                "are cut"
            )
