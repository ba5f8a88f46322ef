"""Files and the terminal: paths, outputs, progress, folders in buckets."""
