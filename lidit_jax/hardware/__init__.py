"""Accelerator properties: devices of this machine, chip specifications, XLA flags, known faults.

It holds facts and settings only: meshes and shardings are in `lidit_jax.parallel`, predictions from
the specifications in `lidit_jax.planning`.
"""
