"""Tables as LaTeX with booktabs, to be read by \\input."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from lcg.results.tables import DID_NOT_TRAIN, Entry, Table

HEAD = r"""% \usepackage{booktabs,graphicx}
% Tables wider than the line are made smaller; ask for \textwidth in two columns with table*."""
MATH = "·cdot →to ×times ≥geq ≤leq ±pm √surd αalpha βbeta γgamma δdelta λlambda σsigma τtau"
SYMBOLS = {
    **{word[0]: rf"$\{word[1:]}$" for word in MATH.split()},
    **{character: rf"\{character}" for character in "&%$#_{}"},
    **{character: f"${character}$" for character in "<>|"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    '"': "''",
    "†": r"$^\dagger$",
    "—": "---",
    "–": "--",
    "…": r"\dots{}",
    "’": "'",
    "₂": r"$_2$",
    "\N{NO-BREAK SPACE}": "~",
    "\N{ZERO WIDTH SPACE}": "{}",
}


def latex(tables: Sequence[Table], notes: Sequence[str]) -> str:
    """A `table` environment for every table, its task in the caption; notes are comments."""
    parts = [HEAD, *map(_table, tables)]
    if notes:
        parts.append("\n".join(f"% {' '.join(line.split())}" for line in notes))
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    """One table that is no wider than the line, with what one must know to read it under it."""
    lines = [_row(map(escaped, table.header)), r"\midrule"]
    for number, row in enumerate(table.rows):
        if number in table.summaries and number - 1 not in table.summaries and number:
            lines.append(r"\addlinespace[1pt]")
        lines.append(_row(map(_text, row)))
    body = "\n".join(lines)
    about = " ".join(filter(None, [table.about, DID_NOT_TRAIN if table.marked else ""]))
    under = f"\\par\\smallskip\n\\parbox{{\\linewidth}}{{\\footnotesize {escaped(about)}}}\n"
    return (
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{escaped(f'{table.heading}. {table.title}.')}}}\n"
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
        f"\\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}\n\\toprule\n{body}\n\\bottomrule\n"
        f"\\end{{tabular}}}}\n{under if about else ''}\\end{{table}}"
    )


def escaped(text: str) -> str:
    """Text in which no character has a meaning of its own, and which pdflatex can set."""
    apart = " ".join(text.split()).replace("--", "-\N{ZERO WIDTH SPACE}-")  # no dash of its own
    return "".join(map(_character, apart))


def _character(character: str) -> str:
    if character in SYMBOLS or character.isascii():
        return SYMBOLS.get(character, character)
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    if plain.isalpha() and ord(character) < 0x180:  # é, ł: in every LaTeX since 2018
        return character
    return f"[U+{ord(character):04X}]"


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _text(entry: Entry) -> str:
    text, note = escaped(entry.text), escaped(entry.note)
    if entry.selected:
        text = f"\\textbf{{{text}}}"
    if entry.note.startswith("["):  # an interval stands under its number
        return f"\\shortstack[r]{{{text}\\\\{{\\tiny {note}}}}}"
    return f"{text} {{\\footnotesize {note}}}" if note else text
