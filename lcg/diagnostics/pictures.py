"""Write a figure as a PNG."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from lcg.results import write_atomic


def write_png(figure: Any, path: Path, dpi: int = 160) -> Path:
    """Write a figure atomically, with nothing of the date or the program in it."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi, metadata={"Software": None})
    return write_atomic(path, content.getvalue())
