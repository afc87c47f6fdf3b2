"""Where a token is: one file per family of encodings. Knows torch, and nothing of `lcg`."""
