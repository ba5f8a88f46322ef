"""What a training run would need and how fast it could be, before any chip is rented.

Formulas for memory and time, programs compiled for TPU slices that are not there, and the search
for meshes and kernel tiles: everything behind `lidit plan` and `lidit tune`.
"""
