"""The first large tensor of a process is as exact as any other."""

import subprocess
import sys

import pytest

FIRST = """
import torch
torch.set_num_threads(2)
{}
x = torch.rand(2**18) + 1e-3
torch.bmm(torch.rand(8, 128, 32), torch.rand(8, 32, 128)).clamp_(min=0)  # wakes the threads
root = x.clone().sqrt_()
print(float(((root - x.double().sqrt()) / x.double().sqrt()).abs().max()))
"""


def run(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("module", ["lcg.entmax", "lcg.attention.mask", "lcg.models.transformer"])
def test_modules_that_compute_import_it(module):
    assert run(f"import sys, {module}; print('lcg.mkl_workaround' in sys.modules)") == "True\n"


@pytest.mark.slow
def test_the_first_root_is_exact():
    """Without lcg.mkl_workaround about one process in twelve fails this."""
    assert max(float(run(FIRST.format("import lcg.mkl_workaround"))) for _ in range(40)) < 1e-6
