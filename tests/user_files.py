"""A user's own classes, as text; options of the smallest run; ways to start `lcg`."""

from tiny import quick

ROTATE = """
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from lcg.tasks.base import Task, uniform
@dataclass
class Rotate(Task):
    \"\"\"Rotate the source.\"\"\"
    name: ClassVar[str] = "rotate"
    symbols: int = 5
    shift: int = 1
    def sample(self, rng, lengths):
        source = uniform(rng, 0, self.symbols, (len(lengths), lengths.max()))
        places = (np.arange(lengths.max()) + self.shift) % lengths[:, None]
        return source, np.take_along_axis(source, places, axis=1)
"""
NORMALIZER = """
from dataclasses import dataclass
from typing import ClassVar
from lcg.attention.normalizers.softmax import Softmax
@dataclass
class Mine(Softmax):
    name: ClassVar[str] = "mine"
    heat: float = 1.0
    def __call__(self, scores, keys, learned):
        return super().__call__(scores / self.heat, keys, learned)
"""
POSITION = """
from dataclasses import dataclass
from typing import ClassVar
from lcg.positional.rotary import RoPE
@dataclass
class MyPE(RoPE):
    name: ClassVar[str] = "my_pe"
    base: float = 500.0
"""
TINY = " ".join(quick("data.min_length=3"))
# The installed command, the module, and the module with the user's folder first on the path.
WAYS = {
    "lcg": ("lcg", {}),
    "python -m lcg": ("python -m lcg", {}),
    "PYTHONPATH=.": ("lcg", {"PYTHONPATH": "."}),
    "python -m lcg, PYTHONPATH=.": ("python -m lcg", {"PYTHONPATH": "."}),
}
