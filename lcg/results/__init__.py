"""Results of training runs: selection, statistics over seeds, tables and plots.

Importing this is cheap; matplotlib is loaded by the first call of `plot`.
"""

from lcg.results.plot import plot
from lcg.results.published import Verdict, verdicts
from lcg.results.selection import Choice, choose
from lcg.results.statistics import effective_length, wilson
from lcg.results.table import markdown_table, table
from lcg.results.tables import verdict_table

__all__ = [
    "Choice",
    "Verdict",
    "choose",
    "effective_length",
    "markdown_table",
    "plot",
    "table",
    "verdict_table",
    "verdicts",
    "wilson",
]
