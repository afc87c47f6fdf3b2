"""List tasks, attentions, positions, mixers, experiments, sweeps, …"""

from __future__ import annotations

from lcg.commands.args import Parser
from lcg.registry import nearest
from lcg.text import align

LISTS = {
    "tasks": ("task", "task=NAME"),
    "attentions": ("attention", "attention=NAME"),
    "normalizers": ("normalizer", "attention=NAME or attention.normalizer=NAME"),
    "scalings": ("scaling", "attention.scaling=NAME"),
    "output_norms": ("output_norm", "attention.output_norm=NAME"),
    "positions": ("position", "position=NAME"),
    "mixers": ("mixer", "mixer=NAME"),
    "loops": ("loop", "loop=NAME"),
    "experiments": ("experiment", "experiment=NAME"),
    "sweeps": ("sweep", "lcg sweep NAME"),
}


FAMILIES = ("task", "position", "normalizer")
"""Kinds whose members stand under what their module is about."""


def run(words: list[str]) -> int:
    from lcg.catalogue import by_family, catalogue
    from lcg.config.help import backends, difference, listing

    parser = Parser("list", "[WHAT] | --diff A B", __doc__)
    whole = {"backends": backends, "catalogue": catalogue}
    named = ", ".join([*LISTS, *whole])
    parser.add_argument("what", nargs="?", help=f"{named}; default: all but the last two")
    parser.add_argument(
        "--diff", nargs=2, metavar=("A", "B"), help="print how two experiments differ"
    )
    options = parser.parse_intermixed_args(words)
    if options.what not in (None, *whole, *LISTS):
        suggestion = nearest(options.what, [*LISTS, *whole])
        raise ValueError(f"there is no list of {options.what}; {suggestion}")
    if options.diff:
        print(difference(*options.diff))
        return 0
    if options.what in whole:
        print(whole[options.what]().rstrip())
        return 0
    blocks = []
    for title in [options.what] if options.what else LISTS:
        kind, usage = LISTS[title]
        rows = align(listing(kind), justify=str.ljust)
        families = by_family(kind) if kind in FAMILIES else {}
        lines = [] if families else [f"  {row.rstrip()}" for row in rows]
        classes = {name for members in families.values() for name in members}
        presets = {row.split()[0] for row in rows} - classes
        for family, members in {**families, "Presets": presets}.items() if families else ():
            own = [row for row in rows if row.split()[0] in members]
            lines += [f"  {family}:", *(f"    {row.rstrip()}" for row in own)] if own else []
        blocks.append("\n".join([f"{title} ({usage})", *lines]))
    print("\n\n".join(blocks))
    return 0
