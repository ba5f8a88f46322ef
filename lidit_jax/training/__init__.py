"""Training: state, step, loop, checkpoints and what one sees of a run."""
