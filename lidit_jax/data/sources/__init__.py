"""Captioned images in the formats that people keep them in, one format per file."""
