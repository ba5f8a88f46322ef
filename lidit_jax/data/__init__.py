"""Captioned images for training: sources, prepared features and latents, and batches in order.

A source gives random access to images with captions. What frozen models make of them is computed
once and kept on disk. The order of batches is a pure function of the seed.
"""
