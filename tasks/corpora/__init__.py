"""Corpora of real text, made by scripts from what packages hold, and one that needs no file."""
