"""Parallel text from the message catalogues of installed packages.

    pip install --no-deps --target packages django wagtail
    python -m lcg.tasks.corpora.gettext_pairs OUT --path packages

writes OUT/gettext.de and OUT/gettext.en, a message a line, and OUT/SOURCES.md, which says what came
from where and under which licence. Needs the package babel, which reads the catalogues.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from lcg.tasks.corpora.writing import answer, documented, write_corpus
from lcg.tasks.text import EXTRA

PLACEHOLDER = re.compile(
    r"%\((\w+)\)[#0\- +]*[\d.]*[a-zA-Z]"  # %(name)s
    r"|%[#0\-+]*[\d.]*[sdifrxXgGeE](?![a-zA-Z])"  # %s
    r"|\$\{[^{}]*\}|\{\{[^{}]*\}\}|\{[^{}]*\}"  # ${name}, {{ name }}, {name}
)
TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
ENTITY = re.compile(r"&[a-z]+;|&#\d+;")
ACCELERATOR = re.compile(r"&(?=\w)")
LETTER = re.compile(r"[^\W\d_]")
LONGEST = 400  # characters of a side
RATIO = 3  # of the longer side to the shorter, in texts of more than 20 characters


@dataclass
class Source:
    """Pairs of one package."""

    name: str
    version: str
    licence: str
    pairs: list[tuple[str, str]] = field(default_factory=list)
    catalogues: int = 0


def pairs_of(catalogue: Iterable) -> Iterator[tuple[str, str]]:
    """(original, translation) of babel's messages, both forms of a plural, none that is fuzzy."""
    for message in catalogue:
        if not message.id or message.fuzzy:
            continue
        if isinstance(message.id, str):
            forms = [(message.id, message.string)]
        else:
            forms = [(message.id[0], message.string[0]), (message.id[-1], message.string[-1])]
        for original, translation in forms:
            if original and isinstance(translation, str) and translation:
                yield original, translation


def cleaned(text: str) -> str:
    """One line without tags and accelerators, in which every placeholder is {name} or {}.

    >>> cleaned("<b>Delete</b>  %(count)d of\\n%s &files")
    'Delete {count} of {} files'
    """
    text = TAG.sub("", text)
    text = ACCELERATOR.sub("", ENTITY.sub(" ", text))
    return " ".join(PLACEHOLDER.sub(_placeholder, text).split())


def _placeholder(found: re.Match) -> str:
    name = found[1] or found[0].strip("${}% ").split(":")[0]
    return "{%s}" % (name if re.fullmatch(r"[\w.]+", name) and len(name) > 1 else "")


def usable(one: str, other: str) -> bool:
    """Return True for a possible translation: words on both sides, the same placeholders."""
    shorter, longer = sorted((len(one), len(other)))
    return (
        one != other
        and bool(LETTER.search(one) and LETTER.search(other))
        and longer <= LONGEST
        and (longer <= 20 or longer <= RATIO * shorter)
        and sorted(re.findall(r"\{[^{}]*\}", one)) == sorted(re.findall(r"\{[^{}]*\}", other))
    )


def read_catalogue(path: Path) -> list[tuple[str, str]]:
    """The pairs of a .po or .mo file. Raises ValueError when it cannot be read."""
    try:
        from babel.messages.mofile import read_mo
        from babel.messages.pofile import read_po
    except ModuleNotFoundError:
        raise ValueError(f"reading catalogues needs the package babel: {EXTRA}") from None
    read = read_po if path.suffix == ".po" else read_mo
    try:
        # What it does not understand of a file it prints and leaves out.
        with path.open("rb") as file, contextlib.redirect_stdout(io.StringIO()):
            return list(pairs_of(read(file)))
    except (ValueError, OSError, UnicodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def sources(places: list[str], wanted: list[str], language: str) -> list[Source]:
    """Every installed distribution that has catalogues of a language, or those wanted, by name.

    Raises ValueError for one that is not installed or has none.
    """
    wanted = [name.lower().replace("_", "-") for name in wanted]
    found: dict[str, Source] = {}
    for distribution in metadata.distributions(path=places):
        name = distribution.metadata["Name"].lower().replace("_", "-")
        if name in found or (wanted and name not in wanted):
            continue
        catalogues = _catalogues(distribution, language)
        if catalogues:
            source = Source(name, distribution.version, _licence(distribution.metadata))
            for path in catalogues:
                source.pairs += read_catalogue(path)
            source.catalogues = len(catalogues)
            found[name] = source
    if missing := sorted(set(wanted) - set(found)):
        raise ValueError(f"{', '.join(missing)}: not installed, or without texts in {language}")
    if not found:
        raise ValueError(f"no package here has texts in {language}; install some, as --help shows")
    return [found[name] for name in wanted or sorted(found)]


def _catalogues(distribution: metadata.Distribution, language: str) -> list[Path]:
    """Its catalogues in order; a .mo beside a .po is the same again."""
    folder = re.compile(rf"(^|/){language}(_{language.upper()})?/LC_MESSAGES/[^/]+\.[pm]o$")
    files = [f for f in distribution.files or () if folder.search(f.as_posix())]
    paths = sorted(Path(distribution.locate_file(file)) for file in files)
    paths = [path for path in paths if path.is_file()]
    return [p for p in paths if p.suffix == ".po" or p.with_suffix(".po") not in paths]


def _licence(about: metadata.PackageMetadata) -> str:
    if expression := about.get("License-Expression"):
        return expression
    classes = [c for c in about.get_all("Classifier") or () if c.startswith("License ::")]
    if classes:
        return "; ".join(c.rpartition(" :: ")[2] for c in classes)
    return (about.get("License") or "see the package").strip().splitlines()[0]


def corpus(found: list[Source]) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """Distinct usable pairs (translation, original) in order, and how many each source added."""
    pairs: dict[tuple[str, str], None] = {}
    added = {}
    for source in found:
        before = len(pairs)
        for original, translation in source.pairs:
            pair = cleaned(translation), cleaned(original)
            if usable(*pair):
                pairs[pair] = None
        added[source.name] = len(pairs) - before
    return list(pairs), added


def about(found: list[Source], added: dict[str, int], language: str) -> str:
    """The file that says what came from where."""
    lines = [
        "# Sources",
        "",
        f"Messages of these packages and their translations into `{language}`, by "
        "`python -m lcg.tasks.corpora.gettext_pairs`. Each stays under the licence of its package; "
        "`pairs` are those that no package above has.",
        "",
        "| package | version | licence | catalogues | messages | pairs |",
        "|---|---|---|---:|---:|---:|",
    ]
    for s in found:
        row = [s.name, s.version, s.licence, s.catalogues, len(s.pairs), added[s.name]]
        lines.append("| " + " | ".join(map(str, row)) + " |")
    return "\n".join([*lines, f"| all | | | | | {sum(added.values())} |", ""])


def run(options: Namespace) -> str:
    """Make the corpus; returns what to say."""
    found = sources(options.path or sys.path, options.packages, options.language)
    pairs, added = corpus(found)
    if not pairs:
        raise ValueError("no message of these packages is left after cleaning")
    sides = {options.language: 0, "en": 1}
    files = {f"gettext.{side}": "".join(f"{p[i]}\n" for p in pairs) for side, i in sides.items()}
    write_corpus(options.out, {**files, "SOURCES.md": about(found, added, options.language)})
    return f"{options.out}: {len(pairs)} pairs of {len(found)} packages, see SOURCES.md there"


if __name__ == "__main__":
    parser = documented(__doc__)
    parser.add_argument("out", type=Path, help="folder of the corpus")
    parser.add_argument("packages", nargs="*", help="only these packages; default: all that fit")
    parser.add_argument("--path", action="append", help="where packages are installed")
    parser.add_argument("--language", default="de", help="as catalogues name it (default: de)")
    sys.exit(answer(run, parser))
