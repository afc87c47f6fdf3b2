from dataclasses import dataclass
from typing import ClassVar

from lcg.tasks.base import Task, uniform


@dataclass
class Copy(Task):
    """The target is the source.

    Hard because: a symbol repeats every few positions, so beyond the training lengths its place,
    not its neighbourhood, says what comes next. Source: ASEntmax, arXiv 2506.16640.

    >>> print(Copy(symbols=8).example(6))
    inputs <bos> 4 6 7 5 6 4 <sep> 4 6 7 5 6 4
    labels .     . . . . . . 4     6 7 5 6 4 <eos>
    """

    name: ClassVar[str] = "copy"

    symbols: int = 32
    """Size of the alphabet; symbols are drawn uniformly and independently."""

    def __post_init__(self):
        super().__post_init__()
        self.require(self.symbols >= 2, f"symbols must be at least 2, got {self.symbols}")

    def sample(self, rng, lengths):
        source = uniform(rng, 0, self.symbols, (len(lengths), lengths.max()))
        return source, source
