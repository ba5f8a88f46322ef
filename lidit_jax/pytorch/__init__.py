"""The model in plain PyTorch: export to it, import from it, and comparison with the original."""
