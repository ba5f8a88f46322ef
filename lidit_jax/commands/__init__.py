"""The commands of `lidit`, a module each: `add_parser(subparsers)` and `run(options) -> status`."""
