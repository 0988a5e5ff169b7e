"""Spectra (n_ints, n_rows): extraction from clean frames, and their shifts."""
