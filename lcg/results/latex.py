"""Tables as LaTeX with booktabs, to be read by \\input."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from lcg.results.tables import DID_NOT_TRAIN, Entry, Table

HEAD = r"""% \usepackage{booktabs,graphicx}
% Tables wider than the line are made smaller; ask for \textwidth in two columns with table*."""
SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    '"': "''",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
SYMBOLS = {
    "·": r"$\cdot$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "±": r"$\pm$",
    "√": r"$\surd$",
    "†": r"$^\dagger$",
    "—": "---",
    "–": "--",
    "…": r"\dots{}",
    "’": "'",
    "₂": r"$_2$",
    "\N{NO-BREAK SPACE}": "~",
    "\N{ZERO WIDTH SPACE}": "{}",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "δ": r"$\delta$",
    "λ": r"$\lambda$",
    "σ": r"$\sigma$",
    "τ": r"$\tau$",
}


def latex(shown: Sequence[Sequence[tuple[str, Table]]], lines: Sequence[str]) -> str:
    """A `table` environment for every table, its task in the caption; notes are comments."""
    parts = [HEAD]
    for tables in shown:
        title = tables[0][1].title
        parts += [_table(table, f"{heading}. {title}.") for heading, table in tables]
    if lines:
        parts.append("\n".join(f"% {' '.join(line.split())}" for line in lines))
    return "\n\n".join(parts) + "\n"


def _table(table: Table, caption: str) -> str:
    """One table that is no wider than the line, with what one must know to read it under it."""
    columns = "l" + "r" * (len(table.header) - 1)
    rows = [[_text(entry) for entry in row] for row in table.rows]
    lines = [_row(map(escaped, table.header)), r"\midrule"]
    for number, row in enumerate(rows):
        if number in table.summaries and number - 1 not in table.summaries and number:
            lines.append(r"\addlinespace[1pt]")
        lines.append(_row(row))
    body = "\n".join(lines)
    about = " ".join(filter(None, [table.about, DID_NOT_TRAIN if table.marked else ""]))
    under = f"\\par\\smallskip\n\\parbox{{\\linewidth}}{{\\footnotesize {escaped(about)}}}\n"
    return (
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{escaped(caption)}}}\n"
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{body}\n\\bottomrule\n"
        f"\\end{{tabular}}}}\n{under if about else ''}\\end{{table}}"
    )


def escaped(text: str) -> str:
    """Text in which no character has a meaning of its own, and which pdflatex can set."""
    apart = " ".join(text.split()).replace("--", "-\N{ZERO WIDTH SPACE}-")  # no dash of its own
    return "".join(map(_character, apart))


def _character(character: str) -> str:
    known = SPECIAL.get(character) or SYMBOLS.get(character)
    if known or character.isascii():
        return known or character
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    if plain.isalpha() and ord(character) < 0x180:  # é, ł: in every LaTeX since 2018
        return character
    return f"[U+{ord(character):04X}]"


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _text(entry: Entry) -> str:
    text = escaped(entry.text)
    if entry.selected:
        text = f"\\textbf{{{text}}}"
    note = escaped(entry.note)
    if entry.note.startswith("["):  # an interval stands under its number
        return f"\\shortstack[r]{{{text}\\\\{{\\tiny {note}}}}}"
    return f"{text} {{\\footnotesize {note}}}" if note else text
