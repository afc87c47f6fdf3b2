"""One self-contained HTML page of many runs: figures, tables, attention maps, provenance.

`build` finds the runs, has `figures` and `maps` draw, and fills `report.html.j2`. `upload` sends
the result to W&B. Importing this is cheap.
"""

from lcg.report.build import Report, find, make
from lcg.report.maps import MapChoice, parse_heads

__all__ = ["MapChoice", "Report", "find", "make", "parse_heads"]
