"""Rates (n_ints, n_rows, n_cols) to clean, background-free frames with their spatial profile."""
