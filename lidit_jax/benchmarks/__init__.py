"""Timings beside PyTorch: both in processes of one run that take turns."""
