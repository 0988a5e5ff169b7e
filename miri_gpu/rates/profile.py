"""The spatial profile: which share of a row's light falls on each column."""

from miri_gpu.backend import namespace
from miri_gpu.containers import Array


def build_profile(model: Array, left: int, right: int) -> Array:
    """Normalise a smooth model of the frames to a spatial profile.

    Parameters
    ----------
    model : (..., n_rows, n_cols) float
        Smooth model of the light; negative values count as 0.
    left, right : int
        The profile covers columns left .. right - 1.

    Returns
    -------
    (..., n_rows, n_cols) float32
        Sum 1 in each row, 0 outside the columns. A row without light gets the uniform profile.

    Notes
    -----
    Horne 1986, PASP 98, 609, table 1, step 5.
    """
    xp = namespace(model)
    light = xp.where(model[..., left:right] > 0, model[..., left:right], 0.0)
    total = light.sum(axis=-1, keepdims=True)
    lit = total > 0
    share = xp.where(lit, light / xp.where(lit, total, 1.0), 1.0 / (right - left))
    profile = xp.zeros(model.shape, dtype=xp.float32)
    profile[..., left:right] = share
    return profile
