"""What all Steps share: settings as stpipe's spec, models in and out, arrays on the device.

A Step (of `miri_gpu.stage_1`, `stage_2`, `reference`) opens its input, calls the function of the
core that the reduction calls, and wraps the result. It never changes its input.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jwst.stpipe import Step
from stdatamodels.jwst import datamodels
from stpipe.config_parser import ConfigObj

from miri_gpu import backend as backends
from miri_gpu.blocks import Workers, memory_to_take
from miri_gpu.containers import Array, ArrayBundle, Ramps
from miri_gpu.detector import EXPOSURE_TYPE, FRAME_TIME_S
from miri_gpu.parameters import Parameters, field_types

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

_SPEC_TYPES = {
    int: "integer",
    float: "float",
    bool: "boolean",
    str: "string",
    tuple[int, ...]: "int_list",
    tuple[float, ...]: "float_list",
    tuple[str, ...]: "string_list",
}
_DRAWING_SPEC = """
draw_integration = integer(default=0)  # the integration that figures of a single one show
figure_path = string(default=None)  # file or folder where figures are saved; else output_dir
"""


def spec_of(params: type[Parameters] | None = None, **drawings: str) -> str:
    """A Step's spec: a setting for each field of its parameters, and switches for its figures.

    Limits are left to the parameters, which name in their errors what was expected.

    Parameters
    ----------
    params : class of Parameters, or None
    **drawings : str
        What each switch draws.
    """
    lines = []
    for f in fields(params) if params is not None else ():
        kind = next(k for k in field_types(f) if k is not type(None))
        unit = f" [{f.metadata['unit']}]" if f.metadata["unit"] else ""
        default = _spec_value(f.default)
        lines.append(
            f"{f.name} = {_SPEC_TYPES[kind]}(default={default})  # {f.metadata['help']}{unit}"
        )
    lines += [f"{name} = boolean(default=False)  # draw {what}" for name, what in drawings.items()]
    return "\n".join(lines) + (_DRAWING_SPEC if drawings else "\n")


def _spec_value(value: Any) -> str:
    if isinstance(value, tuple):
        return "list(" + ", ".join(_spec_value(item) for item in value) + ")"
    return f'"{value}"' if isinstance(value, str) else str(value)


class MiriStep(Step):
    """Base of all Steps of this package.

    Attributes
    ----------
    settings : class of Parameters, or None
        The settings of the function that the Step calls.
    """

    settings: ClassVar[type[Parameters] | None] = None
    prefetch_references = False

    def parameters(self) -> Parameters:
        """The Step's settings, checked; ValueError names what is wrong with them."""
        return self.settings(**{f.name: getattr(self, f.name) for f in fields(self.settings)})

    def opened(self, init, *kinds: type, slitless: bool = True):
        """Open the input: a copy of a model, or what a file holds.

        Parameters
        ----------
        init : model, or path of a file
        *kinds : classes of models
            The ones that this Step can work on; raw ramps pass for a RampModel.
        slitless : bool
            Whether the Step is for LRS slitless exposures only; an exposure that does not say its
            type passes.

        Raises
        ------
        TypeError
            Where it is no such model.
        ValueError
            Where it is of another exposure type, or holds no data.
        """
        given = isinstance(init, datamodels.JwstDataModel)
        model = init if given else datamodels.open(init)
        if isinstance(model, datamodels.Level1bModel) and datamodels.RampModel in kinds:
            given, model = False, _as_ramps(model)
        if not isinstance(model, kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            raise TypeError(
                f"{self.class_alias}: input: expected a {names}, got a {type(model).__name__}"
            )
        stated = model.meta.exposure.type
        if slitless and stated is not None and stated != EXPOSURE_TYPE:
            raise ValueError(
                f"{self.class_alias}: input: meta.exposure.type: expected {EXPOSURE_TYPE}, "
                f"got {stated}"
            )
        if model.data is None or model.data.size == 0:
            raise ValueError(f"{self.class_alias}: input: data: expected some, got none")
        return model.copy() if given else model

    def complete(self, model, name: str | None = None):
        """Say in the model's header that this Step was done, and return the model."""
        setattr(model.meta.cal_step, name or self.class_alias, "COMPLETE")
        return model

    def present(self, model, figures: Mapping[str, "Figure"]) -> None:
        """Show the figures where somebody looks, and save them where the user said."""
        from miri_gpu.plots import present_figures

        stem = Path(model.meta.filename).stem if model.meta.filename else ""
        named = {f"{stem}_{name}" if stem else name: figure for name, figure in figures.items()}
        folder = self.figure_path if self.figure_path is not None else self.output_dir
        present_figures(named, folder)

    def drawn_integration(self, n_ints: int) -> int:
        """Index, from 0, of the integration that figures show; ValueError where there is none."""
        if not -n_ints <= self.draw_integration < n_ints:
            raise ValueError(
                f"{self.class_alias}.draw_integration: expected {-n_ints} to {n_ints - 1}, "
                f"as there are {n_ints}, got {self.draw_integration}"
            )
        return self.draw_integration % n_ints

    def finalize_result(self, result, reference_files_used) -> None:
        """Note software and references in exposures; numbers and reference files have no place."""
        if isinstance(result, datamodels.RampModel | datamodels.CubeModel):
            super().finalize_result(result, reference_files_used)

    @classmethod
    def get_config_from_reference(cls, dataset, *args, **kwargs):
        """Settings from CRDS: it has none for these Steps, and is not asked."""
        return ConfigObj()

    @staticmethod
    def get_stpipe_loggers() -> tuple[str, ...]:
        """Whose messages `call` and `strun` show."""
        return (*Step.get_stpipe_loggers(), "miri_gpu")


def in_blocks(
    function: Callable[..., Array | ArrayBundle],
    arrays: Sequence[np.ndarray],
    shared: Sequence[np.ndarray] = (),
) -> Any:
    """Apply a function to blocks of integrations, on the GPU where there is one.

    Parameters
    ----------
    function : callable
        Takes blocks of the arrays, then the shared ones; returns an array, or a bundle of arrays,
        whose first axis is the integrations.
    arrays : (n_ints, ...) on the host
    shared : arrays that every block needs whole, on the host

    Returns
    -------
    What the function returns, of all integrations, on the host.
    """
    backend = backends.select()
    workers = Workers.of(backend, memory_to_take(backend))
    everywhere = [backend.to_device(array) for array in shared]
    done: dict[int, Any] = {}

    def work(ints: slice) -> None:
        result = function(*(backend.to_device(array[ints]) for array in arrays), *everywhere)
        bundle = isinstance(result, ArrayBundle)
        done[ints.start] = result.map(backends.to_host) if bundle else backends.to_host(result)

    bytes_per_int = 2 * sum(array[0].nbytes for array in arrays)  # fits are in float64
    workers.run(work, workers.cut(0, len(arrays[0]), bytes_per_int), lambda: None)
    parts = [done[start] for start in sorted(done)]
    first = parts[0]
    return first.concatenated(parts) if isinstance(first, ArrayBundle) else np.concatenate(parts)


def _as_ramps(raw):
    """A RampModel with the samples of raw ramps, a copy."""
    model = datamodels.RampModel(data=np.array(raw.data, dtype=np.float32))
    model.update(raw)
    if raw.int_times is not None:
        model.int_times = raw.int_times.copy()
    return model


def ramps_of(model) -> Ramps:
    """The ramps of a RampModel, on the host; flags that it does not hold are 0."""
    data = as_float32(model.data)
    groupdq, pixeldq = model.groupdq, model.pixeldq
    return Ramps(
        data=data,
        groupdq=_flags(groupdq, data.shape, np.uint8, "groupdq"),
        pixeldq=_flags(pixeldq, data.shape[2:], np.uint32, "pixeldq"),
    )


def rates_of(model) -> tuple[np.ndarray, np.ndarray]:
    """Rate images and data quality of a CubeModel, on the host; flags it does not hold are 0."""
    data = as_float32(model.data)
    return data, _flags(model.dq, data.shape, np.uint32, "dq")


def as_float32(array) -> np.ndarray:
    """The array as the core wants it, without a copy where it is so already."""
    return np.ascontiguousarray(array, dtype=np.float32)


def _flags(flags, shape: tuple[int, ...], dtype, name: str) -> np.ndarray:
    if flags is None:
        return np.zeros(shape, dtype=dtype)
    if flags.shape != shape:
        raise ValueError(f"input: {name}: expected the shape {shape}, got {flags.shape}")
    return np.ascontiguousarray(flags, dtype=dtype)


def group_time_s(model) -> float:
    """Time from one group to the next [s]: stated, or from the integration time, or FASTR1's."""
    exposure = model.meta.exposure
    if exposure.group_time is not None:
        return exposure.group_time
    if exposure.integration_time is not None and exposure.ngroups:
        return exposure.integration_time / exposure.ngroups
    return FRAME_TIME_S
