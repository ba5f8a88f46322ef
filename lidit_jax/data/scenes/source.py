"""Random-access source of scenes, rendered on demand without files."""

from __future__ import annotations

import random
from typing import Any

from lidit_jax.config.schema import Config
from lidit_jax.data.scenes.captions import caption
from lidit_jax.data.scenes.held_out import admitted
from lidit_jax.data.scenes.paraphrases import paraphrase
from lidit_jax.data.scenes.render import check_size, render
from lidit_jax.data.scenes.sampling import (
    MIXTURE,
    SIZED,
    TEXTURED,
    draw_claim,
    draw_task,
    realize,
)
from lidit_jax.data.scenes.scene import Claim, Scene
from lidit_jax.data.scenes.vocabulary import LANGUAGES
from lidit_jax.errors import LiditError

SPLITS = ("train", "heldout")
_TRIES = 20
_PARAPHRASED = 0.5
PARAPHRASES = 2
"""Version of the paraphrases, increased when they alone change; the demo used the first."""
VERSION = 2
"""Version of images and captions, increased with any change so that caches are rebuilt."""


class SceneSource:
    """Captioned scenes with random access: `len(source)` and `source[i]`.

    Record `i` is a pure function of (seed, split, i, size, language): every host, process and
    restart gets the same one, and the scene does not depend on `size` or `language`.
    """

    def __init__(
        self,
        split: str = "train",
        records: int = 50_000,
        size: int = 64,
        language: str = "en",
        seed: int = 0,
        captions: int = 0,
        shares: tuple[float, ...] = (),
        textured: float = TEXTURED,
        sized: float = SIZED,
        varied: bool = False,
    ):
        """Open a split.

        Args:
          split: "train", or "heldout" for the combinations that training never shows.
          records: number of scenes.
          size: side of the images in pixels, a multiple of 8.
          language: of the captions, "en", "zh" or "both" (drawn for each record).
          seed: another seed gives other scenes of the same split.
          captions: number of captions that the records share: records i and i + captions have the
            same caption and different images. 0 draws a caption for every record.
          shares: of the tasks, in the order of `sampling.MIXTURE`; empty for the defaults.
          textured: share of the captions that name a texture.
          sized: share of the captions that may name a size: those of one or two objects do.
          varied: whether half of the English captions are paraphrases instead of plain ones.

        Raises:
          LiditError: for an unknown split or language, or an impossible size or count.
        """
        if split not in SPLITS:
            raise LiditError(f"scene split {split!r}: choose one of {', '.join(SPLITS)}")
        if language not in (*LANGUAGES, "both"):
            raise LiditError(f"caption language {language!r}: choose en, zh or both")
        if records <= 0 or captions < 0:
            raise LiditError(f"{records} scenes: ask for at least one")
        if shares and (len(shares) != len(MIXTURE) or min(shares) < 0 or not sum(shares)):
            raise LiditError(
                f"scene shares {shares}: give {len(MIXTURE)} numbers, none negative, for "
                f"{', '.join(MIXTURE)}"
            )
        check_size(size)
        self.split, self.size, self.language, self.seed = split, size, language, seed
        self.distinct_captions = min(captions or records, records)
        self.shares, self.textured, self.sized, self.varied = shares, textured, sized, varied
        self._records = records

    def __len__(self) -> int:
        return self._records

    def __repr__(self) -> str:
        # It names cached data, so default values are omitted, to match names of older versions.
        shares = f", shares={self.shares}" if self.shares else ""
        if (self.textured, self.sized) != (TEXTURED, SIZED):
            shares += f", textured={self.textured}, sized={self.sized}"
        if self.varied:
            shares += f", varied={PARAPHRASES}"
        return (
            f"SceneSource(split={self.split!r}, records={len(self)}, size={self.size}, "
            f"language={self.language!r}, seed={self.seed}, "
            f"captions={self.distinct_captions}, version={VERSION}{shares})"
        )

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return record `index`: {"image": uint8 [H, W, 3], "caption": str, "index": int}."""
        scene = self.scene(index)
        return {
            "image": render(scene, self.size),
            "caption": self._say(scene.claim, index),
            "index": int(index),
        }

    def scene(self, index: int) -> Scene:
        """Return the ground truth of record `index`. Raises `IndexError` outside of the source."""
        task, claim = self._claim(index)
        rng = self._random(index, "layout")
        while True:
            scene = realize(task, claim, rng)
            if admitted(scene, self.split):
                return scene

    def _claim(self, index: int) -> tuple[str, Claim]:
        """Return task and claim of a record: the first claim drawn that the split allows."""
        rng = self._random(index, "claim")
        task = draw_task(rng, self.shares)
        while True:
            claim = draw_claim(task, rng, self.textured, self.sized)
            # Four equal objects occupy all quadrants, and some pairs are held out in one of them.
            if any(admitted(realize(task, claim, rng), self.split) for _ in range(_TRIES)):
                return task, claim

    def caption(self, index: int) -> str:
        """Return the caption of record `index`, without rendering its image."""
        return self._say(self._claim(index)[1], index)

    def _say(self, claim: Claim, index: int) -> str:
        rng = self._random(index, "caption")
        language = rng.choice(LANGUAGES) if self.language == "both" else self.language
        plain = caption(claim, rng, language)
        if self.varied and language == "en" and rng.random() < _PARAPHRASED:
            return paraphrase(claim, rng)
        return plain

    def _random(self, index: int, purpose: str) -> random.Random:
        if not 0 <= index < len(self):
            raise IndexError(f"scene {index} of {len(self)}")
        if purpose != "layout":
            index %= self.distinct_captions
        return random.Random(f"{purpose}/{self.seed}/{self.split}/{int(index)}")


def open_scenes(config: Config, split: str) -> SceneSource:
    """Open the scenes of `config.data`; validation has combinations that training does not."""
    data = config.data
    if split == "heldout":
        records, captions, shares = data.validation_records, 0, ()
    else:
        records, captions, shares = data.train_records, data.distinct_captions, data.scene_fractions
    return SceneSource(
        split,
        records,
        data.image_size,
        data.language,
        config.seed,
        captions,
        shares,
        data.textured_fraction,
        data.sized_fraction,
        data.caption_style == "varied",
    )
