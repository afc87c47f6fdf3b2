"""What training runs measured: the record of a run, statistics over seeds, tables and plots.

Importing this is cheap; matplotlib is loaded by the first call of `plot`.
"""

from lcg.results.atomic import write_atomic
from lcg.results.loading import load_runs
from lcg.results.plot import plot
from lcg.results.record import (
    Cell,
    RecordError,
    RunRecord,
    Selection,
    Training,
    Validation,
)
from lcg.results.statistics import effective_length, mean_out_of_distribution, wilson
from lcg.results.table import table

__all__ = [
    "Cell",
    "RecordError",
    "RunRecord",
    "Selection",
    "Training",
    "Validation",
    "effective_length",
    "load_runs",
    "mean_out_of_distribution",
    "plot",
    "table",
    "wilson",
    "write_atomic",
]
