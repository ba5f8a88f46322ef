"""Monitoring of a training run: progress bar, metrics, image grids, report, trackers, profiles.

It only observes: nothing here changes weights. Scores of finished models are in
`lidit_jax.evaluation`.
"""
