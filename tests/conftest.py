"""What the tests share: backends to run on, random numbers, and one small simulated observation."""

import dataclasses
import sys

import numpy as np
import pytest
import standin

from miri_gpu import backend, kernels
from miri_gpu.containers import ArrayBundle

BACKENDS = ("numpy", "standin", "cupy")
STSCI_PACKAGES = "(stpipe|jwst|stcal|stdatamodels|crds|asdf|gwcs)"


def pytest_configure(config):
    """Warnings are errors, but for what STScI's packages have to say about one another."""
    for category in ("DeprecationWarning", "PendingDeprecationWarning"):
        config.addinivalue_line("filterwarnings", f"ignore::{category}:{STSCI_PACKAGES}")


class OnBackend:
    """Moves what a test made with NumPy to the backend under test.

    Call it with an array, or a container, dataclass, dict, list or tuple of arrays; with several
    of them it returns a tuple. Whatever is no array (parameters, numbers, None) passes through.
    The arrays it returns cannot be written to, but for CuPy, which has no such arrays.

    Attributes
    ----------
    name : "numpy", "standin" or "cupy"
    xp : the array library under test
    """

    def __init__(self, name):
        self.name = name
        modules = {"numpy": lambda: np, "standin": lambda: standin.xp, "cupy": _cupy}
        self.xp = modules[name]()

    def __call__(self, *things):
        moved = tuple(self._move(thing) for thing in things)
        return moved[0] if len(moved) == 1 else moved

    def _move(self, thing):
        if isinstance(thing, np.ndarray):
            return self._move_array(thing)
        if isinstance(thing, ArrayBundle):
            return thing.map(self._move)
        if isinstance(thing, dict):
            return {key: self._move(value) for key, value in thing.items()}
        if isinstance(thing, list | tuple):
            return type(thing)(self._move(item) for item in thing)
        if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
            values = {f.name: getattr(thing, f.name) for f in dataclasses.fields(thing) if f.init}
            moved = {name: self._move(value) for name, value in values.items()}
            same = all(moved[name] is value for name, value in values.items())
            return thing if same else dataclasses.replace(thing, **moved)
        return thing

    def _move_array(self, array):
        if self.name == "cupy":
            return self.xp.asarray(array)
        array = array.copy()
        array.flags.writeable = False
        return array if self.name == "numpy" else standin.StandInArray(array)


def _cupy():
    try:
        return backend.select("cupy").xp
    except backend.BackendError as error:
        if "expected CuPy" in str(error):  # there may be a GPU: what is not tested has to show
            raise
        pytest.skip(str(error))


@pytest.fixture(params=BACKENDS)
def on_backend(request) -> OnBackend:
    """Moves arrays to NumPy (read-only), to the strict stand-in for a GPU, and to a real GPU."""
    return OnBackend(request.param)


@pytest.fixture
def xp(on_backend):
    """The array library under test, the one that `on_backend` moves to."""
    return on_backend.xp


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(20220712)


@pytest.fixture(autouse=True)
def _no_backend_from_outside(monkeypatch):
    """The caller's choice of backend does not decide what a test tests."""
    monkeypatch.delenv(backend.ENVIRONMENT_VARIABLE, raising=False)


@pytest.fixture
def without_kernels(monkeypatch):
    """Array versions compute, also where kernels could."""
    monkeypatch.setenv(kernels.ENVIRONMENT_VARIABLE, "0")


@pytest.fixture
def compiled_kernels():
    """Kernels compute; skips where none are compiled, or where they are switched off."""
    if not kernels.available(np):
        pytest.skip(f"kernels: {kernels.status()}")


@pytest.fixture(scope="session", autouse=True)
def _no_network():
    """No test asks a CRDS server."""
    with pytest.MonkeyPatch.context() as patch:
        # no others: crds keeps its defaults in variables of its own, and misses them afterwards
        for name in ("CRDS_PATH", "CRDS_CONTEXT", "CRDS_SERVER_URL"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def _crds_forgets():
    """No test reads the rules of another: CRDS keeps them by name, whatever cache they are from."""
    yield
    if "crds.core.utils" in sys.modules:
        sys.modules["crds.core.utils"].clear_function_caches()


@pytest.fixture(scope="session")
def observation(tmp_path_factory, _no_network):
    """A small simulated observation of two segments, made once; from then on CRDS reads its cache.

    Returns
    -------
    miri_gpu.simulate.Observation
        directory, segments, crds_path, crds_context, truth. Do not write to its directory.
    """
    from miri_gpu.simulate import SimulationSettings, simulate

    settings = SimulationSettings(n_ints=12, n_groups=12, n_segments=2, seed=20220712)
    made = simulate(tmp_path_factory.mktemp("observation"), settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRDS_PATH", str(made.crds_path))
        patch.setenv("CRDS_CONTEXT", made.crds_context)
        yield made
