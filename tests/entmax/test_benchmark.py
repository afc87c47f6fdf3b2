"""The speed comparison refuses to run without its peer, and to time a wrong result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_a_missing_peer_is_one_line_and_exit_code_2() -> None:
    result = run(
        "import sys; sys.modules['entmax'] = None\n"
        "from benchmarks.entmax import main; sys.exit(main([]))"
    )
    assert result.returncode == 2
    assert result.stderr.strip() == "the peer is missing: pip install entmax==1.3"


def test_a_wrong_result_is_not_timed() -> None:
    result = run(
        "import sys, benchmarks.entmax as b\n"
        "right = b.ours; b.load_peers = lambda: {'entmax15': right}\n"
        "b.SHAPES = ((8, 32),); b.ours = lambda scores: scores.softmax(-1)\n"
        "b.publish = lambda *what: print('published')\n"
        "sys.exit(b.main([]))"
    )
    assert result.returncode == 1
    assert "not timed" in result.stderr and "differ from entmax15" in result.stderr
    assert "published" not in result.stdout
