"""Benchmarks: what a trained model gets right, scored on the images that it draws."""
