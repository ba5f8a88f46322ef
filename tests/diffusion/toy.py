"""A toy network, the same formula in JAX and in PyTorch, and noise for it."""

import jax.numpy as jnp
import numpy as np
import torch

NOISE = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype(np.float32)


def toy_denoiser(x_t, time, library=jnp):
    """A smooth stand-in for the network."""
    time = time.reshape(-1, 1, 1, 1)
    return library.tanh(x_t) * library.cos(time / 300) + 0.1 * x_t


def toy_denoiser_torch(x_t, time):
    """The same in PyTorch, as a scheduler's loop calls it."""
    return toy_denoiser(x_t, time.to(x_t.dtype), torch)
