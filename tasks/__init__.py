"""What is learned: one file per task. See base.py for what a task is, streams.py for its data."""
