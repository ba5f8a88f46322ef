"""A pipeline that draws plain colors, and counts what it draws."""

import threading

import numpy as np

from lidit_jax.config.schema import Config, SamplingConfig
from lidit_jax.errors import LiditError
from lidit_jax.sampling.settings import override

SIDE = 8


class Drawer:
    """Stands in for the pipeline: an image is plain, its color made of its seed."""

    def __init__(self, fingerprint="cafe" * 16, stop_after=np.inf):
        self.config = Config(sampling=SamplingConfig(sampler="euler", steps=9, guidance=2.5))
        self.fingerprint, self.stop_after = fingerprint, stop_after
        self.drawn, self._lock = [], threading.Lock()
        self.calls, self.fails = 0, False

    def settings(self, **changes):
        return override(self.config.sampling, changes)

    def check_lengths(self, prompts):
        if any(len(prompt.split()) > 20 for prompt in prompts):
            raise LiditError(f"the prompt {prompts[0][:9]!r} has 21 tokens, the limit is 20")

    def __call__(self, prompts, *, seed, size, **settings):
        with self._lock:
            self.calls += 1
            if self.fails:
                raise LiditError("images of 8x8 pixels do not fit into the memory")
            if len(self.drawn) >= self.stop_after:
                raise KeyboardInterrupt
            self.drawn += zip(prompts, seed, strict=True)
        return np.stack([plain(each) for each in seed])


def plain(seed):
    """The image of a seed."""
    color = np.asarray([seed >> 16, seed >> 8, seed], np.uint32).astype(np.uint8)
    return np.broadcast_to(color, (SIDE, SIDE, 3))
