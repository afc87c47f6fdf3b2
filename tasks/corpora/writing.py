"""Shared by the corpus scripts: their options, and writing a corpus."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path


def write_corpus(folder: Path, files: dict[str, str]) -> None:
    """Write files into a folder, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        unfinished = folder / f".{name}.{os.getpid()}"
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(folder / name)


def answer(run: Callable[[argparse.Namespace], str], parser: argparse.ArgumentParser) -> int:
    """Run a script and say what it did; what it cannot do is one line and exit code 2."""
    options = parser.parse_args()
    try:
        print(run(options))
    except (ValueError, OSError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


def documented(text: str) -> argparse.ArgumentParser:
    """A parser whose help is a module's docstring."""
    return argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
