"""Captioned images for training: sources, cached latents and text features, and batches.

`sources` reads a format, and `index` holds facts about every record. `opened_data` computes
filters, image shapes and the order of batches from the index; `batches` reads them, from the
sources or from `cache`, and `streamed_data` gives them to training.

The order of batches is a pure function of the seed. The frozen models are in `lidit_jax.encoders`
and `lidit_jax.autoencoders`.
"""
