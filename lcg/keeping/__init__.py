"""What a run directory keeps: `lock` is who may write there, `checkpoints` the weights.

Training writes them and evaluation reads them; nothing here imports lightning.
"""
