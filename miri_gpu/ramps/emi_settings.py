"""Settings of the emicorr step, and what they ask of an observation."""

from dataclasses import dataclass
from typing import ClassVar

from miri_gpu.containers import Readout
from miri_gpu.detector import CLOCK_S
from miri_gpu.parameters import Parameters, option

FEWEST_GROUPS = 3
FEWEST_GROUPS_SEQUENTIAL = 10  # with fewer, the line and level taken before hold much of the wave
FEWEST_GROUPS_SEPARATELY = 4  # with fewer, a line holds nearly all of a wave at some phases


@dataclass(frozen=True, kw_only=True)
class EmiParams(Parameters):
    """Settings of the emicorr step."""

    step: ClassVar[str] = "emicorr"

    algorithm: str = option(
        "joint",
        "joint: fit the reference's wave together with the ramps; self_calibrated: likewise, but "
        "with the shape that the wave has in the data; sequential: fit ramps first (needs 10 or "
        "more groups)",
        choices=("joint", "self_calibrated", "sequential"),
    )
    nints_to_phase: int | None = option(
        None, "integrations that sequential looks at; nothing: see use_n_cycles", at_least=1
    )
    nbins: int | None = option(
        None, "bins of phase in sequential; nothing: two clocks wide", at_least=1
    )
    scale_reference: bool = option(
        True, "scale the reference's wave to the amplitude found by sequential"
    )
    onthefly_corr_freq: tuple[float, ...] | None = option(
        None,
        "look for these frequencies, without a reference wave, by sequential or self_calibrated",
        unit="Hz",
        at_least=0.1,
        at_most=round(0.5 / CLOCK_S),  # a period of two clocks
    )
    use_n_cycles: int | None = option(
        3,
        "sequential looks at as many integrations as hold this many cycles; nothing: at all",
        at_least=1,
    )
    fit_ints_separately: bool = option(
        False, "fit phase and amplitude of each integration by itself, except by sequential"
    )

    def __post_init__(self):
        super().__post_init__()
        if self.onthefly_corr_freq == ():
            raise ValueError(
                f"{self.step}.onthefly_corr_freq: expected at least one frequency, got none"
            )


def used_algorithm(params: EmiParams) -> str:
    """The algorithm that runs: without reference waves joint gives way to sequential."""
    if params.onthefly_corr_freq is not None and params.algorithm == "joint":
        return "sequential"
    return params.algorithm


def check_emi(
    params: EmiParams, n_groups: int, readout: Readout, *, has_reference: bool = True
) -> None:
    """Raise ValueError where the interference cannot be measured, or not well, with these settings.

    To be asked before a reduction starts; the step itself refuses only what cannot be done, so
    that it can be compared with the STScI step.
    """
    check_emi_possible(params, n_groups, readout, has_reference=has_reference)
    if used_algorithm(params) == "sequential" and n_groups < FEWEST_GROUPS_SEQUENTIAL:
        raise ValueError(
            f"emicorr.algorithm: expected joint or self_calibrated with {n_groups} groups, got "
            f"sequential, which needs {FEWEST_GROUPS_SEQUENTIAL}: of a 390.6 Hz wave, which "
            "advances by 1/8 cycle from group to group, the line that it fits to each ramp "
            "beforehand holds much"
        )


def check_emi_possible(
    params: EmiParams, n_groups: int, readout: Readout, *, has_reference: bool
) -> None:
    """Raise ValueError where the interference cannot be measured with these settings."""
    if readout.n_frames != 1 or readout.group_gap != 0:
        raise ValueError(
            "emicorr: expected groups of single frames, none dropped between them, got "
            f"{readout.n_frames} frames and a gap of {readout.group_gap}"
        )
    if n_groups < FEWEST_GROUPS:
        raise ValueError(f"emicorr: expected at least {FEWEST_GROUPS} groups, got {n_groups}")
    if not has_reference and params.onthefly_corr_freq is None:
        raise ValueError(
            "emicorr.onthefly_corr_freq: expected frequencies where there is no emicorr reference "
            "for this mode, got nothing"
        )
    if not params.fit_ints_separately:
        return
    if used_algorithm(params) == "sequential":
        raise ValueError(
            "emicorr.fit_ints_separately: expected false with the sequential algorithm, which "
            "takes one wave for all integrations, got true; use self_calibrated"
        )
    if n_groups < FEWEST_GROUPS_SEPARATELY:
        raise ValueError(
            f"emicorr.fit_ints_separately: expected false with fewer than "
            f"{FEWEST_GROUPS_SEPARATELY} groups, got true with {n_groups}: the line that is fitted "
            "to each ramp holds nearly all of the wave, all integrations have to share one fit"
        )
