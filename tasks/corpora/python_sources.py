"""Text of this Python's standard library: its code, its docstrings, and the help on the language.

    python -m lcg.tasks.corpora.python_sources OUT

writes OUT/code.txt (the modules that are a single file, without their docstrings),
OUT/docstrings.txt, OUT/topics.txt (what `help()` knows of the language), and
OUT/SOURCES.md. Another Python gives another corpus.
"""

from __future__ import annotations

import ast
import io
import platform
import sys
import sysconfig
from argparse import Namespace
from pathlib import Path

from lcg.tasks.corpora.writing import answer, documented, write_corpus

LICENCE = "PSF-2.0"


def modules(folder: Path) -> list[Path]:
    """The library's modules that are a file, in the order of their names."""
    return sorted(p for p in folder.glob("*.py") if not p.name.startswith("_"))


def divided(source: str) -> tuple[str, list[str]]:
    """The code of a module without its docstrings, and these, each as its author indented it.

    >>> divided("'What.'\\nx = 1\\ndef f():\\n    'How.'\\n    return x\\n")
    ('x = 1\\ndef f():\\n    return x\\n', ['What.', 'How.'])
    """
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    texts, gone = [], set()
    for node in sorted(nodes, key=lambda node: getattr(node, "lineno", 0)):
        text = ast.get_docstring(node)
        if text:
            texts.append(text)
            place = node.body[0]
            gone |= set(range(place.lineno, place.end_lineno + 1))
    lines = io.StringIO(source, newline="\n").readlines()  # as the parser counts them
    return "".join(line for i, line in enumerate(lines, 1) if i not in gone), texts


def run(options: Namespace) -> str:
    """Make the corpus; returns what to say."""
    codes, docstrings = [], []
    found = modules(Path(sysconfig.get_path("stdlib")))
    for path in found:
        code, texts = divided(path.read_text(encoding="utf-8"))
        codes.append(code)
        docstrings += texts
    from pydoc_data.topics import topics

    files = {
        "code.txt": "\n\n".join(codes),
        "docstrings.txt": "\n\n".join(docstrings) + "\n",
        "topics.txt": "\n\n".join(topics[name] for name in sorted(topics)) + "\n",
    }
    sizes = {name: len(text.encode()) for name, text in files.items()}
    lines = [f"- {name}: {size:,} bytes" for name, size in sizes.items()]
    of = f"{len(found)} modules of the standard library of Python {platform.python_version()}"
    licence = f"by the Python Software Foundation and others, licence {LICENCE}"
    files["SOURCES.md"] = "\n".join(["# Sources", "", f"From {of}, {licence}.", "", *lines, ""])
    write_corpus(options.out, files)
    return f"{options.out}: {sum(sizes.values()):,} bytes of {of}"


if __name__ == "__main__":
    parser = documented(__doc__)
    parser.add_argument("out", type=Path, help="folder of the corpus")
    sys.exit(answer(run, parser))
