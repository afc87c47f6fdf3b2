"""Synthetic and text tasks, one file each. base.py defines a task, streams.py draws its data."""
