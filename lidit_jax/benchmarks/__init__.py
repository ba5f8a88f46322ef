"""Timings beside PyTorch: both in processes of one run that take turns."""

KINDS = ("attention", "step", "sample", "encode")
"""What `lidit bench` times; each is a module here with `CONTENDERS`."""
