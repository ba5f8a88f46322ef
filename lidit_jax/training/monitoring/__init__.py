"""What a person sees of a training run: progress, metrics, images, report, trackers, profiles."""
