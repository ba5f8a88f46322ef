"""Files and the terminal: paths and buckets, safe output files, progress bars.

It knows nothing of models: every other room may use it.
"""
