"""Diffusion and flow matching: noise schedules, objectives, samplers, guidance, caption dropout.

The functions take the network as an argument: networks are in `lidit_jax.models`, the training loop
in `lidit_jax.training`, and text-to-image generation in `lidit_jax.sampling`.
"""
