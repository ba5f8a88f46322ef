"""The model again in plain PyTorch: export, import and comparison."""
