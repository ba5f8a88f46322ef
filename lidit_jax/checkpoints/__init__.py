"""Trained models on disk: opening, saving, checking and migrating them."""
