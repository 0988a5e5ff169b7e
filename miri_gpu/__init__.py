"""JWST MIRI LRS slitless time series: raw segments to light curves, on a GPU or a laptop."""

__version__ = "0.1.0"
