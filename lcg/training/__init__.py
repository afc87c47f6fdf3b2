"""Training: exact resuming, checkpoints that survive anything, a record of how it went.

`run` is the way in; `callbacks` is what happens at step boundaries, `directory` who may write
where, `checkpoints` the files, `record` what is left behind.
"""
