"""Diffusion: the process (schedules, objectives), samplers, guidance and caption dropout."""
