"""What one sees of a run: log, metrics, report, trackers, profiles."""
