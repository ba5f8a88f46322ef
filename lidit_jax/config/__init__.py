"""What a run is told: recipes, command-line overrides, and the typed `Config` they end in.

A recipe imports `default_config` and, if it offers variants, `Choices` from here.
"""
