"""Ramps (n_ints, n_groups, n_rows, n_cols) to rates: calibration of samples, jumps, ramp fit."""
