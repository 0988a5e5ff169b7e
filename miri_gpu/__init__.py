"""JWST MIRI LRS slitless time series: raw segments to light curves, on a GPU or a laptop.

The reduction, as a table (one function for each step; axes are integrations, groups, rows,
columns):

    function                                          takes           gives           unit
    ------------------------------------------------  --------------  --------------  ------
    ramps.dq.initialize_dq ... ramps.jumps.flag_jumps  Ramps (i,g,r,c)  Ramps (i,g,r,c)  DN
    ramps.ramp_fit.fit_ramps                           Ramps (i,g,r,c)  Rates (i,r,c)    DN/s
    rates.flat.apply_flat, rates.outliers.clean_outliers, background.subtract_background
                                                       Rates (i,r,c)    Rates (i,r,c)    DN/s
    spectra.box.extract_box, spectra.optimal.extract_optimal
                                                       Rates (i,r,c)    Spectra (i,r)    DN/s
    spectra.align.align_spectra                        Spectra (i,r)    Spectra (i,r)    DN/s

`reduce` does all of it: segments of an observation in, its time series out.
"""

__version__ = "0.1.0"
__all__ = ["__version__", "reduce"]


def __getattr__(name: str):
    # the reduction is imported when it is first asked for: `import miri_gpu` stays light
    if name == "reduce":
        from miri_gpu.reduction import reduce

        return reduce
    raise AttributeError(f"module 'miri_gpu' has no attribute {name!r}")
