"""Captioned images for training: sources, cached latents and text features, and batches.

A source gives random access to images with captions. Outputs of the frozen models are computed once
and cached on disk. The order of batches is a pure function of the seed. The frozen models are in
`lidit_jax.encoders` and `lidit_jax.autoencoders`.
"""
