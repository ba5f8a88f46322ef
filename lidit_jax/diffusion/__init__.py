"""Diffusion without networks: noise schedules, objectives, samplers, guidance, caption dropout."""
