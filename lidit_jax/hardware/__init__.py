"""Accelerators: detection, peak performance, topologies and XLA flags."""
