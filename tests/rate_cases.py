"""Rates with what goes wrong in them, and the same rates as models of STScI's steps."""

import numpy as np

from miri_gpu.backend import to_host
from miri_gpu.containers import Rates

SHAPE = (3, 12, 16)
PLANES = ("data", "err", "var_poisson", "var_rnoise")


def random_rates(rng, shape=SHAPE) -> Rates:
    """Rates of either sign, some NaN in one plane or another, some flagged."""
    planes = {
        "data": rng.normal(300, 400, shape),
        "var_poisson": rng.uniform(0, 90, shape),
        "var_rnoise": rng.uniform(1, 20, shape),
    }
    for plane in planes.values():
        plane[rng.uniform(size=shape) < 0.02] = np.nan
    planes["err"] = np.sqrt(planes["var_poisson"] + planes["var_rnoise"])
    return Rates(
        **{name: plane.astype(np.float32) for name, plane in planes.items()},
        dq=rng.choice([0] * 9 + [1, 2, 4, 1 << 20], shape).astype(np.uint32),
    )


def rate_model(rates: Rates):
    """The same rates as a model that STScI's steps take."""
    from stdatamodels.jwst import datamodels

    model = datamodels.CubeModel(
        dq=rates.dq.copy(), **{name: getattr(rates, name).copy() for name in PLANES}
    )
    model.meta.instrument.name = "MIRI"
    model.meta.subarray.xstart = model.meta.subarray.ystart = 1
    model.meta.subarray.ysize, model.meta.subarray.xsize = rates.data.shape[1:]
    return model


def assert_same_rates(ours: Rates, model, names=PLANES, rtol=0.0) -> None:
    """Our rates have the flags of STScI's model, and its planes to the given tolerance."""
    np.testing.assert_array_equal(to_host(ours.dq), model.dq)
    assert ours.dq.dtype == np.uint32
    for name in names:
        plane = getattr(ours, name)
        np.testing.assert_allclose(to_host(plane), getattr(model, name), rtol=rtol, err_msg=name)
        assert plane.dtype == np.float32
