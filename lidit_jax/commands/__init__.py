"""The commands of `lidit`, one module each, with `add_parser(subparsers)` and `run(options)`."""
