"""Predicted memory, step time and cost of training runs on TPUs and GPUs, without the hardware.

It holds the formulas for memory and time (a roofline fitted to published runs), ahead-of-time
compilation for TPU slices, and the search for meshes and attention tiles, for `lidit plan` and
`lidit tune`. Nothing here trains: measuring a real run is for `lidit_jax.training.monitoring` and
`lidit_jax.benchmarks`.
"""
