"""Benchmarks: what a trained model gets right."""
