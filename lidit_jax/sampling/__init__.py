"""Text-to-image generation with a trained model, for `Pipeline` and `lidit sample`.

It handles prompts, sizes, seeds, initial images, batches and PNG metadata. The samplers and
guidance are in `lidit_jax.diffusion`, loading of checkpoints in `lidit_jax.checkpoints`.
"""
