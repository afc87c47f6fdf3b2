"""Evaluation: exact match at lengths far beyond training."""
