"""Benchmarks: automatic scores of the images that a trained model generates."""
