"""The reference arrays of one observation, cut and moved together."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

from miri_gpu.area import Area
from miri_gpu.backend import Backend, namespace
from miri_gpu.containers import Array, ArrayBundle
from miri_gpu.parameters import Parameters, option
from miri_gpu.ramps.emi import EmiReference

NOT_AVAILABLE = "N/A"  # what CRDS and the STScI pipeline call a reference that does not exist


@dataclass(frozen=True, kw_only=True)
class CustomGainParams(Parameters):
    """Settings of the custom_gain step."""

    step: ClassVar[str] = "custom_gain"

    gain_value: float = option(
        3.1, "gain of every pixel, instead of the reference's", unit="e-/DN",
        at_least=0.01, at_most=1000,
    )  # fmt: skip


@dataclass(frozen=True, eq=False, kw_only=True)
class Calibration(ArrayBundle):
    """Reference data of one observation, cut to its subarray.

    The last two axes of every array are rows and columns. What the observation has no reference
    for is None, and the step that would use it is to be skipped.

    Attributes
    ----------
    mask : (n_rows, n_cols) uint32
        Data-quality bits of the pixels.
    saturation : (n_rows, n_cols) float32 [DN]
        Saturation level; NaN where it is unknown.
    reset : (n_ref_ints, n_ref_groups, n_rows, n_cols) float32 [DN]
    linearity : (n_coeffs, n_rows, n_cols) float32
        Coefficients from the constant term up.
    dark : (n_ref_ints, n_ref_frames, n_rows, n_cols) float32 [DN]
    average_dark : (n_rows, n_cols) float32 [e-/s]
        Mean dark current, whose photon noise the ramp fit adds.
    read_noise : (n_rows, n_cols) float32 [DN]
    gain : (n_rows, n_cols) float32 [e-/DN]
    flat, flat_err : (n_rows, n_cols) float32
    saturation_dq, reset_dq, linearity_dq, dark_dq, flat_dq : (n_rows, n_cols) uint32
        Data-quality bits of the references.
    wavelength : (n_rows, n_cols) float64 [um]
        NaN outside the calibrated region.
    rscd : (first, later) or None
        First groups to leave out in the exposure's first integration and in later ones; -1 where
        the reference does not say.
    emicorr : EmiReference or None
        The interfering waves of this mode.
    gain_factor : float or None
        Factor for a non-standard gain setting, where one was used.
    files : dict[str, str]
        File name of each type of reference, or "N/A".
    context, folder : str
        The CRDS context that chose them, or else the folder that they came from; the other is
        empty.
    """

    mask: Array | None = None
    saturation: Array | None = None
    saturation_dq: Array | None = None
    reset: Array | None = None
    reset_dq: Array | None = None
    linearity: Array | None = None
    linearity_dq: Array | None = None
    dark: Array | None = None
    dark_dq: Array | None = None
    average_dark: Array | None = None
    read_noise: Array | None = None
    gain: Array | None = None
    flat: Array | None = None
    flat_err: Array | None = None
    flat_dq: Array | None = None
    wavelength: Array | None = None
    rscd: tuple[int, int] | None = None
    emicorr: EmiReference | None = None
    gain_factor: float | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    context: str = ""
    folder: str = ""

    def map(self, function) -> Self:
        """Apply a function to every array that is there."""
        return replace(self, **{name: function(array) for name, array in self._arrays().items()})

    def cut(self, area: Area) -> Self:
        """Cut every array to some rows and columns."""
        return self.map(lambda array: array[..., *area])

    def to(self, backend: Backend) -> Self:
        """Move every array to where a backend computes."""
        return self.map(backend.to_device)

    @property
    def n_bytes(self) -> int:
        """Of all arrays."""
        return sum(array.nbytes for array in self._arrays().values())

    def with_gain(self, params: CustomGainParams) -> Self:
        """Replace the gain by one value (ExoTiC-MIRI's SetCustomGain)."""
        xp = namespace(self.gain)
        gain = xp.full(self.gain.shape, params.gain_value, dtype=xp.float32)
        return replace(self, gain=gain, files={**self.files, "gain": f"{params.gain_value} e-/DN"})

    def _arrays(self) -> dict[str, Any]:
        return {
            f.name: value for f in fields(self) if hasattr(value := getattr(self, f.name), "shape")
        }
