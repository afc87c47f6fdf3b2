"""The length ladder: exact match at lengths far beyond training."""
