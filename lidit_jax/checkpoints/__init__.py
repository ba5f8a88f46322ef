"""Saving and loading of train states and trained models.

It holds the checkpoints of training (weights, EMA weights, optimizer state, provenance) and the
folders of `lidit export`. Every description carries a format number; older ones are migrated when
they are read. Weights of other projects are read by `lidit_jax.weights`, the PyTorch export is in
`lidit_jax.pytorch`.
"""
