"""lcg: train short, evaluate long. How far does an attention × position encoding carry?"""

__version__ = "0.1.0"
