"""Every kernel compiles for a CUDA device, and fits its shared memory, without there being one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("which", "device"),
    [(which, "H100") for which in ("modes", "sizes", "biases", "ones")] + [("sizes", "RTX")],
)
def test_kernels_compile(which, device):
    """The interpreter runs what the compiler may refuse."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    script = Path(__file__).with_name("compile_all.py")
    done = subprocess.run(
        [sys.executable, script, which, "--device", device],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and not done.stdout, (done.stdout + done.stderr)[-2000:]
