"""Trained models on disk: what training saves, what `lidit export` writes, and how both are opened.

Every description carries a format number; older ones are migrated when they are read.
"""
