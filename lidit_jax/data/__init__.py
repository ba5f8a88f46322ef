"""Captioned images for training: sources, cached latents and text features, and batches.

There are two ways from images to batches:

- prepared data, which `lidit train` uses: an `ImageSource` gives random access to images with
  captions, and outputs of the frozen models are computed once and cached on disk;
- streamed data, for sets of any size: `sources` reads a format, `index` holds facts about every
  record, and filters, buckets, order and batches are computed from the index.

The order of batches is a pure function of the seed. The frozen models are in `lidit_jax.encoders`
and `lidit_jax.autoencoders`.
"""
