"""Devices and chips as facts: what is here, what a generation can do, which flags XLA needs."""
