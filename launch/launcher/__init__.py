"""Launcher behind `launch/run.py`. Standard library only: it runs on a laptop without JAX."""
