"""Timings of this code beside PyTorch, interleaved in one run so that both see the same machine."""

KINDS = ("attention", "step", "sample", "encode")
"""What `lidit bench` times; each is a module here with `CANDIDATES`."""
