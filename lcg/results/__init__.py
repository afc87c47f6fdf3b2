"""What training runs measured: the record of a run, statistics over seeds, tables and plots.

Importing this is cheap; matplotlib is loaded by the first call of `plot`.
"""

from lcg.results.atomic import move_aside, write_atomic
from lcg.results.loading import load_runs, read_runs
from lcg.results.markdown import markdown_table
from lcg.results.plot import plot
from lcg.results.published import Verdict, verdicts
from lcg.results.record import (
    Cell,
    RecordError,
    RunRecord,
    Selection,
    Training,
    Validation,
)
from lcg.results.selection import Choice, choose
from lcg.results.statistics import effective_length, mean_out_of_distribution, wilson
from lcg.results.table import table
from lcg.results.tables import verdict_table

__all__ = [
    "Cell",
    "Choice",
    "RecordError",
    "RunRecord",
    "Selection",
    "Training",
    "Validation",
    "Verdict",
    "choose",
    "effective_length",
    "load_runs",
    "markdown_table",
    "mean_out_of_distribution",
    "move_aside",
    "plot",
    "read_runs",
    "table",
    "verdict_table",
    "verdicts",
    "wilson",
    "write_atomic",
]
