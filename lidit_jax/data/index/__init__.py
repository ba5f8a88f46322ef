"""The index of a source: what is known of every record, as columns that are mapped into memory.

A source is scanned once, by any number of processes, and never again for what the columns tell:
filters, buckets, order and statistics read them, not the pictures.
"""
