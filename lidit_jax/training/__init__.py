"""Training of the diffusion model and the autoencoder: loop, step, losses, optimizers, resuming.

The same loop runs both tasks (`tasks.Task`) and handles preemption, non-finite updates and several
hosts. `preparation` runs the frozen models over the data before the first step. Networks are in
`lidit_jax.models`, batches in `lidit_jax.data`, the format of checkpoints in
`lidit_jax.checkpoints`.
"""
