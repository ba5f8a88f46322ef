"""Files and terminal output: paths, buckets, images, atomic output files, progress bars.

It does not depend on models, so every other package may use it.
"""
