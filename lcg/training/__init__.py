"""Training: exact resuming, checkpoints that survive anything, a record of how it went.

`run` is the way in; `callbacks` is what happens at step boundaries, `directory` which run is where,
`record` what is left behind.
"""
