"""Position encodings, one file per family. Imports torch, and nothing else of `lcg`."""
