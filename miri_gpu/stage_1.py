"""Steps for ramps, between those of the STScI pipeline: ExoTiC-MIRI's, by name and keyword.

from miri_gpu.stage_1 import DropGroupsStep
ramps = DropGroupsStep.call(ramps, drop_groups=[0, 1, 2, -1])
"""

import logging
from dataclasses import replace

import numpy as np
from jwst.datamodels import RampModel

from miri_gpu.background import (
    GroupBackgroundParams,
    measure_group_background,
    subtract_background,
)
from miri_gpu.containers import Array, Ramps, Readout
from miri_gpu.integration_times import divided_times
from miri_gpu.ramps.groups import (
    DropGroupsParams,
    DropIntegrationsParams,
    RegroupParams,
    drop_groups,
    drop_integrations,
    kept_integrations,
    regroup,
)
from miri_gpu.ramps.reference_pixels import (
    ReferencePixelParams,
    measure_reference_pixels,
    subtract_reference_pixels,
)
from miri_gpu.steps import MiriStep, group_time_s, in_blocks, ramps_of, spec_of

__all__ = [
    "DropGroupsStep",
    "DropIntegrationsStep",
    "GroupBackgroundSubtractStep",
    "ReferencePixelStep",
    "RegroupStep",
]

log = logging.getLogger(__name__)


class DropGroupsStep(MiriStep):
    """Leave whole groups out of the ramp fit by flagging them DO_NOT_USE."""

    class_alias = "drop_groups"
    settings = DropGroupsParams
    spec = spec_of(DropGroupsParams)

    def process(self, input):  # noqa: A002 - ExoTiC-MIRI's name
        """Flag the groups.

        Parameters
        ----------
        input : RampModel, or path of a file with ramps

        Returns
        -------
        RampModel
            With more flags in its groupdq; the data are as they were.
        """
        params = self.parameters()
        model = self.opened(input, RampModel)
        readout = Readout(first_integration=first_number(model) - 1)
        model.groupdq = drop_groups(ramps_of(model), params=params, readout=readout).groupdq
        return self.complete(model)


class ReferencePixelStep(MiriStep):
    """Subtract the drifts of the amplifiers that their reference pixels see."""

    class_alias = "reference_pixel"
    settings = ReferencePixelParams
    spec = spec_of(ReferencePixelParams, draw_correction="what is subtracted from each amplifier")

    def process(self, input):  # noqa: A002 - ExoTiC-MIRI's name
        """Measure the drifts, and subtract them.

        Parameters
        ----------
        input : RampModel, or path of a file with ramps

        Returns
        -------
        RampModel
        """
        params = self.parameters()
        model = self.opened(input, RampModel)
        ramps = ramps_of(model)

        def corrected(data: Array, groupdq: Array, pixeldq: Array) -> Array:
            block = Ramps(data=data, groupdq=groupdq, pixeldq=pixeldq)
            drifts = measure_reference_pixels(block, params=params)
            return subtract_reference_pixels(block, drifts).data

        model.data = in_blocks(corrected, (ramps.data, ramps.groupdq), (ramps.pixeldq,))
        if self.draw_correction:
            self._draw(model, ramps, params)
        return self.complete(model, "refpix")

    def _draw(self, model, ramps: Ramps, params: ReferencePixelParams) -> None:
        from miri_gpu.plots import plot_reference_pixels

        drawn = self.drawn_integration(len(ramps.data))
        one = slice(drawn, drawn + 1)
        part = replace(ramps, data=ramps.data[one], groupdq=ramps.groupdq[one])
        drifts = measure_reference_pixels(part, params=params)[0]
        figure = plot_reference_pixels(drifts, integration=drawn)
        self.present(model, {"reference_pixels": figure})


class GroupBackgroundSubtractStep(MiriStep):
    """Subtract the background of each group, measured either side of the trace."""

    class_alias = "group_background_subtract"
    settings = GroupBackgroundParams
    spec = spec_of(GroupBackgroundParams)

    def process(self, input):  # noqa: A002 - ExoTiC-MIRI's name
        """Measure the background, and subtract it.

        Parameters
        ----------
        input : RampModel, or path of a file with ramps

        Returns
        -------
        RampModel
        """
        params = self.parameters()
        model = self.opened(input, RampModel)
        ramps = ramps_of(model)

        def subtracted(data: Array, groupdq: Array) -> Array:
            background = measure_group_background(data, groupdq, params=params)
            return subtract_background(data, background)

        model.data = in_blocks(subtracted, (ramps.data, ramps.groupdq))
        return self.complete(model)


class DropIntegrationsStep(MiriStep):
    """Take integrations out of a segment; times and numbers follow.

    The integrations that remain are numbered anew, as if observed so. What depends on the place
    in the exposure (the STScI steps reset, rscd and dark_current) is to be corrected first.
    """

    class_alias = "drop_integrations"
    settings = DropIntegrationsParams
    spec = spec_of(DropIntegrationsParams)

    def process(self, input):  # noqa: A002 - ExoTiC-MIRI's name
        """Take the integrations out.

        Parameters
        ----------
        input : RampModel, or path of a file with ramps

        Returns
        -------
        RampModel
            With fewer integrations in its arrays and in INT_TIMES.
        """
        params = self.parameters()
        model = self.opened(input, RampModel)
        ramps = ramps_of(model)
        n_ints = len(ramps.data)
        kept = np.array(kept_integrations(n_ints, params))
        times = times_of(model, n_ints)
        _hold(model, drop_integrations(ramps, params=params))
        if getattr(model, "err", None) is not None:
            model.err = model.err[kept]
        times = None if times is None else times[kept]
        _renumber(model, first_number(model), len(kept) - n_ints, times)
        _scale_exposure_time(model, len(kept) / n_ints)
        return self.complete(model)


class RegroupStep(MiriStep):
    """Cut each integration into shorter ones of `n_groups` groups; times and numbers follow.

    Where the groups do not divide, those left over at the end of each integration are lost. What
    depends on the place in the integration or exposure (the STScI steps reset, rscd and
    dark_current) is to be corrected first.
    """

    class_alias = "regroup"
    settings = RegroupParams
    spec = spec_of(RegroupParams)

    def process(self, input):  # noqa: A002 - ExoTiC-MIRI's name
        """Cut the integrations.

        Parameters
        ----------
        input : RampModel, or path of a file with ramps

        Returns
        -------
        RampModel
            With more integrations of fewer groups.
        """
        params = self.parameters()
        model = self.opened(input, RampModel)
        ramps = ramps_of(model)
        n_ints, n_groups = ramps.data.shape[:2]
        parts = regroup(ramps, params=params)
        n_parts, n_left = divmod(n_groups, params.n_groups)
        if n_left:
            log.warning("regroup: the last %d of %d groups are left over: lost", n_left, n_groups)
        times = times_of(model, n_ints)
        part_s = params.n_groups * group_time_s(model)
        _hold(model, parts)
        if getattr(model, "err", None) is not None:
            model.err = model.err[:, : n_groups - n_left].reshape(parts.data.shape)
        exposure = model.meta.exposure
        exposure.ngroups, exposure.integration_time = params.n_groups, part_s
        if times is not None:
            divided = divided_times(times, n_parts, part_s)
            times = np.repeat(times, n_parts)
            for name, column in divided.items():
                times[name] = column
        n_more = (n_ints if exposure.nints is None else exposure.nints) * (n_parts - 1)
        _renumber(model, (first_number(model) - 1) * n_parts + 1, n_more, times)
        _scale_exposure_time(model, 1 - n_left / n_groups)
        return self.complete(model)


def first_number(model) -> int:
    """Number in the exposure, from 1, of a model's first integration."""
    start = model.meta.exposure.integration_start
    return 1 if start is None else start


def times_of(model, n_ints: int) -> np.ndarray | None:
    """The rows of INT_TIMES of a model's integrations, None where it does not cover them."""
    if model.int_times is None or len(model.int_times) == 0:
        return None
    table = np.array(model.int_times)
    if len(table) == n_ints:
        return table
    first = first_number(model)
    row_of = {int(number): row for row, number in enumerate(table["integration_number"])}
    numbers = range(first, first + n_ints)
    if not all(number in row_of for number in numbers):
        log.warning(
            "INT_TIMES: expected integrations %d to %d, got %d others: left out of the output",
            first, first + n_ints - 1, len(table),
        )  # fmt: skip
        return None
    return table[[row_of[number] for number in numbers]]


def _hold(model, ramps: Ramps) -> None:
    """Put ramps into a model."""
    model.data, model.groupdq = ramps.data, ramps.groupdq


def _renumber(model, first: int, n_more: int, times: np.ndarray | None) -> None:
    """Number the integrations from `first` on, in the header and in INT_TIMES."""
    exposure = model.meta.exposure
    n_ints = len(model.data)
    exposure.nints = n_ints if exposure.nints is None else exposure.nints + n_more
    exposure.integration_start, exposure.integration_end = first, first + n_ints - 1
    if times is not None:
        times["integration_number"] = first + np.arange(n_ints)
        model.int_times = times
    elif model.int_times is not None:
        del model.int_times


def _scale_exposure_time(model, share: float) -> None:
    if model.meta.exposure.exposure_time is not None:
        model.meta.exposure.exposure_time *= share
