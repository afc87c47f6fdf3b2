"""The size of a tile of scores, and the launch of a kernel over such tiles.

Chosen by what the compiler says of registers and shared memory (tests/kernels/compile_all.py).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from lcg.attention.backends.triton.rows import SPARSEMAX

ONE_TILE = 256
"""Rows of at most so many keys are solved in registers; fewer where these are wide."""
BLOCKS: tuple[int, int] | None = None
"""Queries and keys of a tile of a longer row; None: by head_dim and type."""
CROWDED = 512
"""Blocks of queries from which on two and two look for candidates together, to share what is read
of the keys; with fewer, half of a device would have nothing to do."""
FUSED = {"enable_fp_fusion": True}
"""Given at every launch: the default of triton until 3.9, which warns where it is not said."""
ROOMY = 200 * 1024
"""Bytes of shared memory per program from which on a device has large tiles (H100)."""

MOST_REGISTERS = 255
"""The limit of a thread. Given at every launch: where none is, ptxas has been seen to take 32 and
spill the rest."""


class Tile(NamedTuple):
    """Queries (BM) and keys (BN) of a tile, and how a kernel over it is launched."""

    BM: int
    BN: int
    warps: int
    stages: int
    one: bool
    """A row of keys is one tile."""
    registers: int = MOST_REGISTERS
    """Most per thread, so that three programs fit a multiprocessor; not for a general α, nor for a
    bias that is read for each score or key."""

    def parts(self, rows: int, blocks: int) -> int:
        """The number of blocks of queries that look for candidates together, of so many for each of
        `rows` heads of samples.

        Products of 64 rows or more are made by other instructions than those of fewer, with another
        rounding: 32 and 32 would be scored otherwise than alone.
        """
        return 2 if blocks > 1 and rows * blocks >= CROWDED and self.BM != 32 else 1

    def options(self, mode: int, parts: int = 1, solving: bool = False) -> dict:
        """The options of a launch with so many blocks of queries in a program.

        solving: of the kernel that solves rows of one tile. Where scores take few registers it has
        half as many warps, which repeat less of what is done per row and wait less for each other.
        """
        simple = mode <= SPARSEMAX.value
        registers = self.registers if simple else MOST_REGISTERS
        if parts > 1 and registers < MOST_REGISTERS:
            registers = 128
        return {
            "num_warps": self.warps * parts // (2 if solving and simple else 1),
            "num_stages": self.stages,
            "maxnreg": registers,
            **FUSED,
        }


def tile_for(q: Tensor, k: Tensor, biased: bool = False) -> Tile:
    """The tile for queries [b h q d] and keys [b g k d] on their device."""
    return tile_of(q.shape[2], k.shape[2], q.shape[3], q.dtype, is_roomy(q.device), biased)


def tile_of(
    queries: int,
    keys: int,
    d: int,
    dtype: torch.dtype,
    roomy: bool = True,
    biased: bool = False,
) -> Tile:
    """The tile for these sizes: small enough for its scores and operands to stay on the chip.

    roomy: the device has ROOMY bytes of shared memory; biased: by more than slopes.
    """
    double = dtype == torch.float32
    narrow = d <= (32 if double else 64)
    longest = {(True, False): 256, (False, True): 64}.get((narrow, double), 128)
    longest = min(ONE_TILE, longest if roomy else longest // 2)
    if keys <= longest:
        width = _power_of_two(keys, longest)
        # 16 queries: with more, warps would repeat each other's work.
        warps = 8 if width * (1 + double) >= 256 else 4
        capped = 16 < d <= 32 and not double and roomy and warps == 4 and not biased
        registers = 168 if capped else MOST_REGISTERS
        return Tile(16, width, warps, 1, one=True, registers=registers)
    if narrow or (roomy and d <= (64 if double else 128)):
        sides = 64, 64
    else:
        sides = (32, 32) if double else (64, 32)
    height, width = BLOCKS or sides
    stages = 1 if double and not narrow else 3 if narrow and not double and roomy else 2
    registers = 168 if narrow and roomy and not (double or biased) else MOST_REGISTERS
    return Tile(_power_of_two(queries, height), width, 4, stages, one=False, registers=registers)


@functools.cache
def is_roomy(device: torch.device) -> bool:
    """True where a program may have ROOMY bytes of shared memory."""
    if device.type != "cuda":
        return True
    properties = torch.cuda.get_device_properties(device)
    return properties.shared_memory_per_block_optin >= ROOMY


def _power_of_two(count: int, most: int) -> int:
    """The least that covers so many, from 16 on and at most `most`, itself a power of 2.

    Found by comparisons, so that what torch.compile makes for one length serves others.
    """
    power = 16
    while power < min(count, most):
        power *= 2
    return power
