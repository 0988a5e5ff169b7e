"""The steps of the reduction in the order in which they run, each a section of a recipe."""

from dataclasses import dataclass

from miri_gpu.background import BackgroundParams, GroupBackgroundParams
from miri_gpu.calibration import CustomGainParams
from miri_gpu.parameters import Parameters
from miri_gpu.ramps.emi import EmiParams
from miri_gpu.ramps.first_frame import FirstFrameParams
from miri_gpu.ramps.groups import DropGroupsParams, DropIntegrationsParams, RegroupParams
from miri_gpu.ramps.jumps import JumpParams
from miri_gpu.ramps.likelihood import LikelihoodParams
from miri_gpu.ramps.ramp_fit import RampFitParams
from miri_gpu.ramps.reference_pixels import ReferencePixelParams
from miri_gpu.ramps.rscd import RscdParams
from miri_gpu.ramps.saturation import SaturationParams
from miri_gpu.ramps.self_calibration import CustomLinearityParams
from miri_gpu.ramps.time_jumps import TimeJumpParams
from miri_gpu.rates.outliers import CleanOutliersParams
from miri_gpu.rates.trace import TraceParams
from miri_gpu.spectra.align import AlignSpectraParams
from miri_gpu.spectra.box import Extract1DBoxParams
from miri_gpu.spectra.optimal import Extract1DOptimalParams


@dataclass(frozen=True)
class Section:
    """One section of a recipe, and what else there is to know of its step.

    Attributes
    ----------
    step, summary : str
    params : class of its settings, or None
    required : bool
        A required step has no `skip`.
    chosen_by : (step, key, value) or None
        The setting by which a step without `skip` is chosen, if it does not always run.
    reference : str or None
        Type of the file without which the step is left out.
    keyword : str or None
        By which a file of ramps or rates says whether the step was done, as jwst's do.
    """

    step: str
    summary: str
    params: type[Parameters] | None = None
    required: bool = False
    chosen_by: tuple[str, str, str] | None = None
    reference: str | None = None
    keyword: str | None = None


SECTIONS = (
    Section("custom_gain", "replace the reference gain by one value", CustomGainParams),
    Section("drop_integrations", "leave out whole integrations", DropIntegrationsParams),
    Section("group_scale", "undo a wrong divisor of on-board averaging", keyword="S_GRPSCL"),
    Section(
        "dq_init",
        "flag the pixels that the mask reference says are bad",
        reference="mask",
        keyword="S_DQINIT",
    ),
    Section(
        "emicorr",
        "measure and subtract interference of 390.6 and 10 Hz",
        EmiParams,
        reference="emicorr",
        keyword="S_MIREMI",
    ),
    Section(
        "saturation",
        "flag saturated samples and their neighbours",
        SaturationParams,
        reference="saturation",
        keyword="S_SATURA",
    ),
    Section(
        "firstframe",
        "leave out the first group, as STScI once did",
        FirstFrameParams,
        keyword="S_FRSTFR",
    ),
    Section("lastframe", "leave out the last group, as STScI does", keyword="S_LASTFR"),
    Section("reset", "subtract the reset anomaly", reference="reset", keyword="S_RESET"),
    Section("drop_groups", "leave out whole groups", DropGroupsParams),
    Section(
        "linearity",
        "correct the non-linearity of the detector",
        reference="linearity",
        keyword="S_LINEAR",
    ),
    Section(
        "custom_linearity",
        "measure the non-linearity on the last segment instead of taking the reference",
        CustomLinearityParams,
    ),
    Section(
        "rscd",
        "leave out first groups, as STScI does",
        RscdParams,
        reference="rscd",
        keyword="S_RSCD",
    ),
    Section("dark_current", "subtract the dark", reference="dark", keyword="S_DARK"),
    Section("reference_pixel", "subtract drifts seen by reference pixels", ReferencePixelParams),
    Section(
        "group_background_subtract",
        "subtract the background of each group",
        GroupBackgroundParams,
    ),
    Section("regroup", "cut each integration into shorter ones", RegroupParams),
    Section("time_jump", "flag jumps that stand out in time", TimeJumpParams),
    Section("jump", "flag cosmic-ray jumps in the ramps", JumpParams, keyword="S_JUMP"),
    Section(
        "ramp_fit", "fit the slope of each ramp", RampFitParams, required=True, keyword="S_RAMP"
    ),
    Section(
        "likelihood",
        "settings of the ramp fit where its algorithm is LIKELY (and jump is better left out)",
        LikelihoodParams,
        required=True,
        chosen_by=("ramp_fit", "algorithm", "LIKELY"),
    ),
    Section("gain_scale", "rescale where the gain reference asks for it", keyword="S_GANSCL"),
    Section("flat_field", "divide by the flat field", reference="flat"),
    Section(
        "clean_outliers", "replace outliers, build the profile", CleanOutliersParams, required=True
    ),
    Section("background_subtract", "subtract the background of each frame", BackgroundParams),
    Section("trace", "fit position and width of the trace", TraceParams, required=True),
    Section("extract_1d_box", "extract spectra by summing an aperture", Extract1DBoxParams),
    Section("extract_1d_optimal", "extract spectra optimally", Extract1DOptimalParams),
    Section("align_spectra", "measure shifts, and realign", AlignSpectraParams, required=True),
)

_STEPS = [section.step for section in SECTIONS]
STEPS_ON_RAMPS = _STEPS[_STEPS.index("group_scale") : _STEPS.index("flat_field")]
