"""One self-contained HTML page of many runs: figures, tables, attention maps, provenance.

`sources` finds the runs, a module per figure draws it (`accuracy`, `learning_rate`, `loss`,
`heads`, `maps`) as SVG by `drawing`, `tables` sets the tables of `lcg.results` as HTML made by
`tags`, `page` is the document, `making` joins them. `upload` sends the result to W&B. Importing
this is cheap.
"""

from lcg.report.build import Report, make
from lcg.report.maps import MapChoice, parse_heads
from lcg.report.sources import find

__all__ = ["MapChoice", "Report", "find", "make", "parse_heads"]
