"""Subcommands of the `lidit` command line, one module each.

Each module has `add_parser(subparsers)` and `run(options)`: it parses options, calls the other
subpackages and prints results. Anything that a Python program may need is in those subpackages.
"""
