"""Lengths that tasks have."""

from lcg.tasks.base import Task


def fitting(task: Task, length: int) -> int:
    """A length that the task has: this one, else its least, or a half, a quarter, ... of it."""
    length = max(length, task.min_length)
    while True:
        try:
            task.check_length(length)
        except ValueError:
            length //= 2
        else:
            return length
