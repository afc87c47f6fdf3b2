"""Help, lists and mistakes are answered at once: nothing heavy is imported.

`python -m benchmarks.commands` prints how long they take.
"""

import pytest

HEAVY = ("torch", "wandb", "lightning", "matplotlib", "triton", "pandas", "scipy")
LIGHT = {
    "--help": 0,
    "": 2,
    "--version": 0,
    "train --help": 0,
    "train experiment=quick/mqmtar attention=asentmax --help": 0,
    "eval --help": 0,
    "table --help": 0,
    "plot --help": 0,
    "list": 0,
    "list experiments": 0,
    "list backends": 0,
    "new position decays": 0,
    "list --diff paper/reverse repo/reverse": 0,
    "show task=mqmtar length=64": 0,
    "train attention=asentmx": 2,
    "train position=rope model.d_model=56": 2,
    "train --dry-rum": 2,
    "show task=cop": 2,
    "eval nothing-here": 2,
    "eval nothing-here lenths=3": 2,
    "table nothing-here": 2,
}
PROGRAM = """
import sys
from lcg.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
loaded = [name for name in {heavy!r} if name in sys.modules]
print(code, *loaded, file=sys.stderr)
"""


@pytest.mark.parametrize("words", LIGHT)
def test_nothing_heavy_is_imported(words, process):
    done = process("-c", PROGRAM.format(heavy=HEAVY), *words.split())
    assert done.stderr.splitlines()[-1].split() == [str(LIGHT[words])], done.stderr


def test_the_import_of_the_package_is_light(process):
    done = process("-X", "importtime", "-c", "import lcg, lcg.config, lcg.registry")
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "omegaconf" in imported
    assert not imported & set(HEAVY)
