"""The spatial profile: which share of a row's light falls on each column."""

from miri_gpu.backend import namespace
from miri_gpu.containers import Array


def build_profile(model: Array, left: int, n_cols: int) -> Array:
    """Normalise a smooth model of the frames to a spatial profile.

    Parameters
    ----------
    model : (..., n_rows, n_lit) float
        Smooth model of the light in the columns of the profile; negative values count as 0.
    left : int
        The first of these columns.
    n_cols : int
        Of the frames.

    Returns
    -------
    (..., n_rows, n_cols) float32
        Sum 1 in each row, 0 outside the columns. A row without light gets the uniform profile.

    Notes
    -----
    Horne 1986, PASP 98, 609, table 1, step 5.
    """
    xp = namespace(model)
    light = xp.where(model > 0, model, 0.0)
    total = light.sum(axis=-1, keepdims=True)
    lit = total > 0
    n_lit = model.shape[-1]
    profile = xp.zeros((*model.shape[:-1], n_cols), dtype=xp.float32)
    profile[..., left : left + n_lit] = xp.where(
        lit, light / xp.where(lit, total, 1.0), 1.0 / n_lit
    )
    return profile
