"""Weights in and out: Hugging Face folders and GGUF files to JAX, by one table of names a model."""
