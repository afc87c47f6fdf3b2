"""The commands: one module each, whose docstring is its help and whose `run` takes its
arguments."""
