"""Evaluation of trained models: scene benchmark, benchmark suites, and comparison of samplers.

This is for `lidit eval`. Validation losses are computed in `lidit_jax.training`, speed is measured
in `lidit_jax.benchmarks`.
"""
