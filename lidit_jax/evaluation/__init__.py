"""Evaluation of trained models: scores on the scene benchmark, and comparison of samplers.

This is for `lidit eval`. Validation losses are computed in `lidit_jax.training`, speed is measured
in `lidit_jax.benchmarks`.
"""
