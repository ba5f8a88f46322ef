"""Readers of captioned images: folders, WebDataset, Parquet, ArrayRecord, TFDS and others.

`registry` opens a source, `protocol` is the interface of all formats. Nothing is decoded here. The
index of the records is in `lidit_jax.data.index`, batches are in `lidit_jax.data`.
"""
