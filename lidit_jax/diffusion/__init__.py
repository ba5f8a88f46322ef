"""Diffusion apart from the network: schedules, losses, samplers, guidance, caption dropout."""
