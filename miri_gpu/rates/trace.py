"""Where the trace lies across the dispersion, and how wide it is, in each integration."""

from dataclasses import dataclass
from typing import ClassVar

from miri_gpu.backend import namespace
from miri_gpu.containers import Array, ArrayBundle
from miri_gpu.numerics import fit_gaussians, masked_median
from miri_gpu.parameters import Parameters, option

_SIGMA_START = 1.59  # pixel


@dataclass(frozen=True, kw_only=True)
class TraceParams(Parameters):
    """The part of the frame where the trace is looked for."""

    step: ClassVar[str] = "trace"

    row_idx_start_used: int = option(200, "first row used", unit="row", at_least=0)
    row_idx_end_used: int = option(390, "end of the rows used, itself not in it", unit="row")
    col_idx_start_used: int = option(12, "first column used", unit="column", at_least=0)
    col_idx_end_used: int = option(68, "end of the columns used, itself not in it", unit="column")

    def __post_init__(self):
        super().__post_init__()
        for axis, n_least in (("row", 1), ("col", 4)):
            start = getattr(self, f"{axis}_idx_start_used")
            end = getattr(self, f"{axis}_idx_end_used")
            if end < start + n_least:
                raise ValueError(
                    f"{self.step}.{axis}_idx_end_used: expected at least {start + n_least}, "
                    f"{n_least} after {axis}_idx_start_used, got {end}"
                )

    def cut(self, data: Array) -> Array:
        """The part of frames (..., n_rows, n_cols) that is used.

        Raises ValueError where the frames do not hold all of it.
        """
        for axis, n in zip(("row", "col"), data.shape[-2:], strict=True):
            end = getattr(self, f"{axis}_idx_end_used")
            if end > n:
                raise ValueError(
                    f"{self.step}.{axis}_idx_end_used: expected at most {n}, the size of the "
                    f"frames, got {end}"
                )
        rows = slice(self.row_idx_start_used, self.row_idx_end_used)
        return data[..., rows, self.col_idx_start_used : self.col_idx_end_used]


@dataclass(frozen=True, eq=False, kw_only=True)
class Trace(ArrayBundle):
    """A Gaussian across the dispersion for each integration; all NaN where its fit failed.

    Attributes
    ----------
    amplitude, base : (n_ints,) float64 [unit of the frames]
    centre, sigma : (n_ints,) float64 [column]
    """

    amplitude: Array
    centre: Array
    sigma: Array
    base: Array


def fit_trace(data: Array, *, params: TraceParams | None = None) -> Trace:
    """Fit position and width of the trace to the median over rows of each frame.

    Parameters
    ----------
    data : (n_ints, n_rows, n_cols) float
        NaN takes no part.
    params : TraceParams

    Returns
    -------
    Trace

    Raises
    ------
    ValueError
        Where the rows or columns used reach beyond the frames.
    """
    xp = namespace(data)
    params = TraceParams() if params is None else params
    curves = masked_median(params.cut(data), axis=1)
    columns = xp.arange(params.col_idx_start_used, params.col_idx_end_used)

    known = xp.where(xp.isfinite(curves), curves, -xp.inf)
    height = known.max(axis=-1)
    position = (known.argmax(axis=-1) + params.col_idx_start_used).astype(xp.float64)
    height = xp.where(xp.isfinite(height), height, 0.0).astype(xp.float64)
    start = [height, position, xp.full_like(height, _SIGMA_START), xp.zeros_like(height)]
    fit = fit_gaussians(curves, columns, xp.stack(start, axis=-1))
    return Trace(amplitude=fit[:, 0], centre=fit[:, 1], sigma=fit[:, 2], base=fit[:, 3])
