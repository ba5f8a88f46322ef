"""Subcommands of the `lidit` command line, and helpers such as `sample_options`.

Each command has `add_parser(subparsers)` and `run(options)`: it parses options, calls the other
subpackages and prints results. Anything that a Python program may need is in those subpackages.
"""
