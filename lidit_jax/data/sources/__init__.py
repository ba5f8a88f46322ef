"""Readers of captioned images: folders, WebDataset, Parquet, ArrayRecord, TFDS and others."""
