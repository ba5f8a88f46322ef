"""Drawing of a suite's images: shared by any number of launches, and continued by the next."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from lidit_jax.data.shared_work import PATIENCE, share_work
from lidit_jax.errors import LiditError
from lidit_jax.evaluation.suites import drawing_record
from lidit_jax.evaluation.suites.drawing_record import OWN, DrawingRecord
from lidit_jax.evaluation.suites.suite import (
    DrawingPlan,
    Item,
    Picture,
    Suite,
    first_of_each_task,
    prompts_sha256,
    sample_seed,
)
from lidit_jax.io.files import Files
from lidit_jax.io.output import atomic_file
from lidit_jax.io.paths import in_bucket
from lidit_jax.io.progress import Progress
from lidit_jax.sampling import png_metadata
from lidit_jax.sampling.request import image_requests

if TYPE_CHECKING:
    from lidit_jax.sampling.pipeline import Pipeline

_BATCH = 16
"""Images per claimed batch, as many as the pipeline draws at once."""
_PNG_END = b"IEND\xaeB`\x82"
"""Last bytes of every complete PNG."""


def draw_suite(
    suite: Suite,
    plan: DrawingPlan,
    pipeline: Pipeline,
    checkpoint: str,
    out: Path,
    *,
    progress: Progress | None = None,
    patience: float = PATIENCE,
) -> DrawingRecord:
    """Return when all images are in the folder, drawn by this launch or others.

    Launches, on one host or several, divide the batches that are not drawn yet. Images appear
    complete, and those that are there are kept. An image depends on the seed, its prompt's key and
    its index alone, so batches and launches do not change it, up to rounding.

    Args:
      suite: the suite.
      plan: prompts and settings.
      pipeline: the model.
      checkpoint: the model as the user named it, for the record.
      out: folder of the images, which launches share; it may be in a bucket.
      progress: receives the number of finished batches.
      patience: seconds without a heartbeat after which another launch counts as dead.

    Raises:
      LiditError: when prompts are too long for the model, or the folder holds images of another
        model, setting or set of prompts; or it cannot be written to.
    """
    items = first_of_each_task(plan.items, plan.limit)
    pictures = [
        picture for item in items for picture in suite.pictures(item, plan.images_per_prompt)
    ]
    _check_lengths(pipeline, items)
    record = _record(suite, plan, items, pipeline, checkpoint)
    draw = _Draw(suite.name, plan, pipeline, checkpoint, out)
    done = out / OWN / "batches"
    per_batch = max(_BATCH // len(pictures[0].samples), 1)
    batches = {
        f"{plan.limit or 'all'}-{i // per_batch:05d}": pictures[i : i + per_batch]
        for i in range(0, len(pictures), per_batch)
    }
    try:
        record = drawing_record.begin(out, record)
        _write_texts(out, suite.text_files(items, plan.images_per_prompt))
        done.mkdir(parents=True, exist_ok=True)
        for folder in {(out / picture.file).parent for picture in pictures}:
            folder.mkdir(parents=True, exist_ok=True)
        _forget_incomplete(out, done, batches)
        claims = out / OWN / "claims"
        share_work(done, batches, draw, claims, progress=progress, patience=patience)
    except (_DrawingError, OSError) as error:
        raise LiditError(f"cannot draw into {out}: {error}") from error
    return record


class _DrawingError(Exception):
    """Mistake that every batch would repeat, so that the rest is not tried."""


@dataclass(frozen=True)
class _Draw:
    """Function that draws the missing images of a batch, then marks it as done."""

    suite: str
    plan: DrawingPlan
    pipeline: Pipeline
    checkpoint: str
    out: Path

    def __call__(self, batch: Sequence[Picture], mark: Path) -> None:
        missing = [picture for picture in batch if not (self.out / picture.file).exists()]
        try:
            if missing:
                self._draw(missing)
        except (LiditError, OSError) as error:
            raise _DrawingError(str(error)) from error
        with atomic_file(mark):
            pass

    def _draw(self, pictures: Sequence[Picture]) -> None:
        samples = [(picture.item, sample) for picture in pictures for sample in picture.samples]
        prompts = [item.prompt for item, _ in samples]
        seeds = [
            sample_seed(self.plan.seed, self.suite, item.key, sample) for item, sample in samples
        ]
        settings = self.pipeline.settings(**self.plan.settings)
        images = self.pipeline(prompts, seed=seeds, size=self.plan.size, **self.plan.settings)
        requests = image_requests(prompts, seed=seeds, guidance=settings.guidance)
        first = 0
        for picture in pictures:
            own = images[first : first + len(picture.samples)]
            extra = {"images": len(own)} if len(own) > 1 else {}
            text = png_metadata.chunks(
                requests[first],
                settings,
                checkpoint=self.checkpoint,
                fingerprint=self.pipeline.fingerprint,
                config=self.pipeline.config,
                raw=False,
                extra=extra | {"suite": self.suite, "prompt_key": picture.item.key},
            )
            file = self.out / picture.file
            # Official scorers read every file beside the images.
            png_metadata.save(Image.fromarray(tiled(own)), file, text, temporaries=self.out / OWN)
            first += len(own)


def tiled(images: UInt8[np.ndarray, "B H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Return one image, or four as a grid of two by two without gaps, in the order of reading."""
    if len(images) == 1:
        return images[0]
    return np.concatenate([np.concatenate([*images[i : i + 2]], axis=1) for i in (0, 2)])


def _record(
    suite: Suite, plan: DrawingPlan, items: Sequence[Item], pipeline: Pipeline, checkpoint: str
) -> DrawingRecord:
    side = pipeline.config.data.image_size
    return DrawingRecord(
        suite=suite.name,
        prompts_sha256=prompts_sha256(plan.items),
        prompts=len(plan.items),
        limit=plan.limit,
        drawn_prompts=len(items),
        images_per_prompt=plan.images_per_prompt,
        seed=plan.seed,
        checkpoint=checkpoint,
        checkpoint_sha256=pipeline.fingerprint,
        size=plan.size or (side, side),
        settings=dataclasses.asdict(pipeline.settings(**plan.settings))
        | png_metadata.computing(pipeline.config),
    )


def _check_lengths(pipeline: Pipeline, items: Sequence[Item]) -> None:
    """Raise `LiditError` with the number of prompts that the model's encoders cannot read whole."""
    refused = []
    for item in items:
        try:
            pipeline.check_lengths([item.prompt])
        except LiditError as error:
            refused.append(str(error))
    if refused:
        raise LiditError(
            f"{len(refused)} of {len(items)} prompts do not fit this checkpoint: {refused[0]}"
        )


def _write_texts(out: Path, texts: Mapping[str, str]) -> None:
    """Write the text files that are missing or differ, each complete."""
    there = _listed(out)
    for name, text in texts.items():
        file = out / name
        if name not in there or file.read_text(encoding="utf-8") != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(file, temporaries=out / OWN) as stream:
                stream.write(text.encode())


def _forget_incomplete(out: Path, done: Path, batches: Mapping[str, Sequence[Picture]]) -> None:
    """Delete images that are cut off, and the marks of batches whose images are not all there.

    Images appear complete, but a full disk, a copy or a user can damage or remove them later.
    """
    there = _listed(out)
    for name, batch in batches.items():
        for picture in () if in_bucket(out) else batch:  # a bucket holds whole objects only
            if picture.file in there and not _is_complete(out / picture.file):
                (out / picture.file).unlink(missing_ok=True)
                there.remove(picture.file)
        if any(picture.file not in there for picture in batch):
            (done / name).unlink(missing_ok=True)


def _listed(out: Path) -> set[str]:
    """Return the names of all files below a folder."""
    return set(Files(os.fspath(out)).listing().files)


def _is_complete(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(stream.tell() - len(_PNG_END), 0))
            return stream.read() == _PNG_END
    except FileNotFoundError:  # another launch has deleted it, for the same reason
        return False
