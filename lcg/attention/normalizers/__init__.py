"""Normalizers map a row of scores to a row of weights; one file each, found by `name`."""
