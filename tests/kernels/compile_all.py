"""Compiles every kernel for CUDA devices that need not be there; a script of its own process.

Prints one line for each kernel that fails, needs more shared memory than the device has, spills
below 64 registers, or waits for each of its products before it asks for the next; and with
`--report` one for each kernel: its registers, spills and shared memory, and how many instructions
each of its loops has, in the order of their ends.
"""

import argparse
import os
import re
import subprocess
import tempfile

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lcg.attention.backends.triton import backward, forward, operators, rows, tiles

DEVICES = {"H100": (90, 232448), "A100": (80, 166912), "RTX": (86, 101376)}
"""Compute capability and shared memory of a program, in bytes."""
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
TYPES_OF = {
    "fp32": ("scale",),
    "*": ("q", "k", "v", "out", "tilted"),
    "*i32": (
        *("q_positions", "k_positions", "q_ids", "k_ids", "window"),
        *("first", "last", "leading", "full", "count"),
    ),
    "*i16": ("listed", "order"),
    "*u8": ("key_mask", "active"),
    "*fp32": (
        *("slopes", "table", "anchor", "support", "moved", "mean_log"),
        *("row_epsilon", "centre", "mean", "lowest"),
    ),
    "*fp64": ("level", "epsilon", "rows", "columns", "table_sums"),
}
"""Arguments that are no 32-bit integers; "*" is a pointer to numbers of the inputs' type."""
RECORDS = {
    "inputs": rows.Inputs,
    "results": rows.Results,
    "C": rows.Constants,
    "reach": forward.Reach,
    "candidates": forward.Candidates,
    "gradients": backward.Gradients,
    "lists": backward.Lists,
}
FORMS = {
    "slopes": ("slopes",),
    "table": ("table", "table_sums"),
    "separable": ("rows", "columns"),
    "window": ("window",),
    "ids": ("q_ids", "k_ids"),
}
"""Forms of a bias, and the arguments that are there if it is."""


def type_of(argument: str, element: str) -> str:
    kind = next((kind for kind, names in TYPES_OF.items() if argument in names), "i32")
    return kind + element if kind == "*" else kind


def build(kernel, element: str, constants: dict, options: dict, capability: int):
    """The compiled kernel; pointers are aligned, as those of tensors."""
    values, aligned = {}, {}

    def describe(name: str, *path: int):
        if name in RECORDS:
            fields = enumerate(RECORDS[name]._fields)
            return RECORDS[name](*(describe(field, *path, i) for i, field in fields))
        if name in constants:
            values[path] = constants[name]
            return "constexpr"
        kind = type_of(name, element)
        if kind.startswith("*"):
            aligned[path] = [["tt.divisibility", 16]]
        return kind

    signature = {name: describe(name, i) for i, name in enumerate(kernel.arg_names)}
    source = ASTSource(kernel, signature=signature, constexprs=values, attrs=aligned)
    options = {name: value for name, value in options.items() if value is not None}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


TOOLS = os.path.join(os.path.dirname(triton.__file__), "backends/nvidia/bin")


def serialized(built, capability: int) -> bool:
    """Return True if the assembler had to put a kernel's asynchronous products in a row."""
    with tempfile.NamedTemporaryFile(suffix=".ptx", mode="w") as file:
        file.write(built.asm["ptx"])
        file.flush()
        words = [f"{TOOLS}/ptxas", "-v", f"--gpu-name=sm_{capability}a", file.name]
        done = subprocess.run([*words, "-o", os.devnull], capture_output=True, text=True)
    return "serialized" in done.stderr


def dumped(built, what: str) -> str:
    """Return what cuobjdump prints of a kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(built.asm["cubin"])
        file.flush()
        words = [f"{TOOLS}/cuobjdump", what, file.name]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def describe(built) -> str:
    """Registers of a thread and bytes of its stack, onto which what does not fit is spilled."""
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", dumped(built, "-res-usage")).groups()
    return f"{registers} registers, {stack} bytes spilled, {built.metadata.shared} bytes shared"


def loops(built) -> list[int]:
    """Instructions from the target of each jump backwards to the jump."""
    lines = re.findall(r"/\*([0-9a-f]{4,})\*/ +([^;]+);", dumped(built, "-sass"))
    place = {int(address, 16): i for i, (address, _) in enumerate(lines)}
    jumps = [(i, re.search(r"BRA.* 0x([0-9a-f]+)", text)) for i, (_, text) in enumerate(lines)]
    starts = [(i, place[int(jump[1], 16)]) for i, jump in jumps if jump]
    return [i - start + 1 for i, start in starts if start < i]


def check(
    device: str,
    element: str,
    mode: int,
    queries: int,
    keys: int,
    d: int,
    report: bool,
    plain: bool = False,
    forms: tuple[str, ...] | None = None,
) -> None:
    """With masks and shared keys, unless plain, and forms of a bias; None: slopes in most modes.

    Lengths of 1 are handed to kernels as constants, as the compiler does by itself.
    """
    capability, shared_memory = DEVICES[device]
    learned = mode == rows.ENTMAX_LOW.value
    if forms is None:
        forms = () if plain or mode == rows.SPARSEMAX.value else ("slopes",)
    biased = not {"table", "separable"}.isdisjoint(forms)
    roomy = shared_memory >= tiles.ROOMY
    tile = tiles.tile_of(queries, keys, d, TYPES[element], roomy, biased)
    numbers = {"queries": queries, "keys": keys}
    numbers |= {"q_blocks": -(-queries // tile.BM), "k_blocks": -(-keys // tile.BN)}
    if plain:
        numbers |= {"shared": 1}
    if min(queries, keys) == 1:
        numbers |= {"shared": 1, "heads": 1, "depth": keys.bit_length()}
    if keys == 1:
        numbers |= {"distances": 1}
    shared = {
        "MODE": mode,
        "CAUSAL": True,
        "PRECISION": "tf32x3" if element == "fp32" else "mixed",
        "D": d,
        "DP": max(16, triton.next_power_of_2(d)),
        "BM": tile.BM,
        "BN": tile.BN,
    }
    shared |= dict.fromkeys(name for form in FORMS.keys() - forms for name in FORMS[form])
    if not forms:
        shared |= dict.fromkeys(("first", "last"))
    if plain or min(queries, keys) == 1:
        shared |= dict.fromkeys(("key_mask", "leading"))
    if not learned:
        shared |= {"row_epsilon": None}
    kernels = []
    if mode in operators.STREAMING:
        kernels.append((forward.one_pass_kernel, {}, tile.options(mode)))
    elif tile.one:
        kernels.append((forward.tile_kernel, {}, tile.options(mode, solving=True)))
    else:
        for parts in (1, 2):
            more = {"PARTS": parts}
            kernels.append((forward.candidates_kernel, more, tile.options(mode, parts)))
        more = {"NEWTON": operators.NEWTON, "GRADIENTS": True}
        kernels.append((forward.entmax_kernel, more, tile.options(mode)))
    if tile.one:
        kernels.append((backward.tile_backward_kernel, {}, tile.options(mode)))
    else:
        kernels.append((backward.dq_kernel, {}, tile.options(mode)))
        kernels.append((backward.dkv_kernel, {}, tile.options(mode)))
    for kernel, more, options in kernels:
        ones = {name: 1 for name, number in numbers.items() if number == 1}
        case = f"{device} {kernel.__name__} mode={mode} {element} {queries} x {keys} d={d} {forms}"
        try:
            built = build(kernel, element, shared | more | ones, options, capability)
        except Exception as error:
            print(f"{case}: {type(error).__name__}: {error}", flush=True)
            continue
        said = describe(built)
        registers, spilled = map(int, re.findall(r"\d+", said)[:2])
        if built.metadata.shared > shared_memory:
            print(f"{case}: shared memory: {built.metadata.shared} bytes", flush=True)
        elif report:
            print(f"{case}: {said}, loops of {loops(built)}", flush=True)
        elif registers < 64 and spilled:
            print(f"{case}: {said}", flush=True)
        if element == "bf16" and "wgmma" in built.asm["ptx"] and serialized(built, capability):
            print(f"{case}: its products are serialized", flush=True)


def check_lists(report: bool) -> None:
    for device, (capability, _) in DEVICES.items():
        for strides in ({}, {"item_stride": 1}, {"list_stride": 1, "length": 1}):
            built = build(backward.list_kernel, "bf16", strides, tiles.FUSED, capability)
            if report:
                print(f"{device} list_kernel: {describe(built)}", flush=True)


def check_modes(device: str, report: bool) -> None:
    for mode in range(6):
        for keys in (98, 4096):
            check(device, "bf16", mode, keys, keys, 32, report)
    check(device, "fp32", rows.ENTMAX_LOW.value, 4096, 4096, 32, report)
    check_lists(report)


def check_sizes(device: str, report: bool) -> None:
    for element, keys, d in (
        *(("fp32", 128, 32), ("fp32", 64, 128), ("fp32", 4096, 128), ("fp32", 4096, 20)),
        *(("fp32", 4096, 64), ("bf16", 256, 64), ("bf16", 4096, 128), ("fp16", 4096, 64)),
        ("fp16", 128, 128),
    ):
        check(device, element, rows.ENTMAX_15.value, 4096, keys, d, report)
    for element, d in (("bf16", 64), ("bf16", 32)):
        check(device, element, rows.ENTMAX_15.value, 4096, 4096, d, report, plain=True)
    check(device, "fp32", rows.ENTMAX_HIGH.value, 98, 98, 128, report, plain=True)


def check_biases(device: str, report: bool) -> None:
    """Each form, and all together, in every mode."""
    sizes = {"bf16": (98, 4096), "fp32": (4096,)}
    for element, mode, forms in (
        ("bf16", rows.ENTMAX_15, ("table",)),
        ("bf16", rows.ENTMAX_15, ("separable",)),
        ("bf16", rows.ENTMAX_15, ("slopes", "window", "ids")),
        ("bf16", rows.SPARSEMAX, ("table", "separable")),
        ("bf16", rows.ENTMAX_LOW, tuple(FORMS)),
        ("bf16", rows.ENTMAX_HIGH, ("table", "separable")),
        ("bf16", rows.SOFTMAX, ("table",)),
        ("bf16", rows.SOFTMAX, ("separable",)),
        ("bf16", rows.RELU, ("separable", "window")),
        ("fp32", rows.ENTMAX_15, ("table", "separable")),
    ):
        for keys in sizes[element]:
            check(device, element, mode.value, keys, keys, 32, report, forms=forms)
    for queries, keys in ((1, 1), (1, 4096), (64, 1)):
        check(device, "bf16", rows.ENTMAX_15.value, queries, keys, 32, report, forms=tuple(FORMS))


def check_ones(device: str, report: bool) -> None:
    """As in decoding: one query, and at first one key."""
    for mode in range(6):
        for keys in (1, 64, 4096):
            check(device, "bf16", mode, 1, keys, 32, report)
        check(device, "bf16", mode, 64, 1, 32, report)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("modes", "sizes", "biases", "ones"))
    parser.add_argument("--device", action="append", choices=DEVICES)
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    checks = {"modes": check_modes, "sizes": check_sizes, "biases": check_biases}
    checks |= {"ones": check_ones}
    for device in options.device or DEVICES:
        checks[options.what](device, options.report)
