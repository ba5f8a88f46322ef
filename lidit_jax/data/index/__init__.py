"""Index of a source: facts about every record (size, captions), as memory-mapped columns.

A source is scanned once, by any number of processes. Afterward filters, buckets, order and
statistics, which are in `lidit_jax.data`, read the columns, not the images.
"""
