"""Shapes in signatures are enforced in every test: see lcg/shapes.py.

Nothing may import these modules before the hook is there, so it is set when pytest starts.
"""

import os

from jaxtyping import install_import_hook

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests' matrices are tiny

CHECKED = [
    "lcg.attention.functional",
    "lcg.attention.backends.reference",
    "lcg.attention.mask",
    "lcg.attention.cache",
    "lcg.attention.layer",
    "lcg.diagnostics.heads",
    "lcg.diagnostics.capture",
    "lcg.evaluation.scoring",
    "lcg.models.transformer",
]

install_import_hook(CHECKED, "beartype.beartype")

from lcg.log import log_to_stderr  # noqa: E402

log_to_stderr()  # as the command does: tests read what it shows
