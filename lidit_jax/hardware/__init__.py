"""Facts about accelerators: what this machine has, what chips can do, XLA flags they need."""
