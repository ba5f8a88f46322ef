"""Training: the loop, the step, what is trained, and the guards around a long run."""
