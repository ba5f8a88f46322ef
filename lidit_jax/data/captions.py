"""Captions of a run: read from the source, then encoded or only tokenized."""

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
"""Seconds of making captions in this process before worker processes are started."""
_CHUNK = 2000
_PROBED = 200


def read_captions(source: ImageSource, folder: Path, workers: int = 0) -> list[str]:
    """Return the distinct captions of a source, cached under `folder`.

    Args:
      source: of the captions.
      folder: parent of all cached data.
      workers: processes to start if this one would take more than a few seconds.

    Returns:
      Those of its first `source.distinct_captions` records, in their order.
    """
    count = source.distinct_captions
    file = folder / f"{content_key('captions', {'source': repr(source)})}.json"
    if file.is_file():
        return json.loads(file.read_text())[:count]  # version 0.1 stored one per record
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
    """Return the text features of every stream, computed or cached under `folder`.

    Args:
      encoders: one per stream.
      captions: distinct captions; a caption's position is its id.
      folder: parent of all cached data.
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
    """Return the tokens of every stream, for online encoding during training.

    Args:
      encoders: one per stream.
      captions: distinct captions; a caption's position is its id.
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
