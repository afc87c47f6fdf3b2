"""Transformers built from a config."""
