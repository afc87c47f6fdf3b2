"""Compiles every kernel for a CUDA device that need not be there; a script of its own process.

Prints one line for each kernel that fails or needs more shared memory than the device has.
"""

import sys

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lcg.attention.backends.triton import backward, forward, rows
from lcg.attention.backends.triton.operators import tile_of

CAPABILITY, SHARED_MEMORY = 90, 232448
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
NUMBERS = {"scale": "fp32"}
POINTERS = {
    "*i32": ("Q_POSITIONS", "K_POSITIONS", "FIRST", "LAST", "COUNT", "ORDER"),
    "*u8": ("KEY_MASK", "ACTIVE"),
    "*fp32": ("SLOPES", "ANCHOR", "DELTA", "D_EPSILON"),
    "*fp64": ("LEVEL", "EPSILON"),
}


def type_of(argument: str, element: str) -> str:
    for pointer, names in POINTERS.items():
        if argument in names:
            return pointer
    return "*" + element if argument.isupper() else NUMBERS.get(argument, "i32")


def build(kernel, element: str, constants: dict, stages: int) -> str | None:
    """What is wrong with this kernel, or None."""
    names = kernel.arg_names
    signature = {n: "constexpr" if n in constants else type_of(n, element) for n in names}
    values = {(i,): constants[n] for i, n in enumerate(names) if n in constants}
    source = ASTSource(kernel, signature=signature, constexprs=values)
    target = GPUTarget("cuda", CAPABILITY, 32)
    try:
        built = triton.compile(source, target=target, options={"num_stages": stages})
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    shared = built.metadata.shared
    return f"shared memory: {shared} bytes" if shared > SHARED_MEMORY else None


def check(element: str, mode: int, keys: int, d: int, learned: bool) -> None:
    tile = tile_of(4096, keys, d, TYPES[element])
    shared = {
        "MODE": mode,
        "CAUSAL": True,
        "MASKED": True,
        "SLOPED": True,
        "PRECISION": "tf32x3" if element == "fp32" else "mixed",
        "D": d,
        "DP": max(16, triton.next_power_of_2(d)),
        "BM": tile.BM,
        "BN": tile.BN,
    }
    listed = {"LISTED": not tile.one}
    first = forward.entmax_kernel, {"ONE_TILE": tile.one}
    if mode in (rows.SOFTMAX.value, rows.RELU.value):
        first = forward.streaming_kernel, {}
    others = (backward.dq_kernel, listed | {"LEARNED": learned}), (backward.dkv_kernel, listed)
    for kernel, more in (first, *others):
        wrong = build(kernel, element, shared | more, tile.stages)
        if wrong:
            print(f"{kernel.__name__} mode={mode} {element} keys={keys} d={d}: {wrong}", flush=True)


if __name__ == "__main__":
    some = sys.argv[1] == "modes"
    if some:
        for mode in range(6):
            for keys in (98, 4096):
                check("bf16", mode, keys, 32, mode == rows.ENTMAX_LOW.value)
    else:
        for element, keys, d in (
            *(("fp32", 128, 32), ("fp32", 64, 128), ("fp32", 4096, 128), ("fp32", 4096, 20)),
            *(("bf16", 256, 64), ("bf16", 4096, 128), ("fp16", 4096, 64), ("fp16", 128, 128)),
        ):
            check(element, rows.ENTMAX_15.value, keys, d, False)
