"""A complete reduction of a faint star (40 groups or more): as `bright.py`, self-calibrated.

    python faint.py OUTPUT SEGMENT_uncal.fits ... [--corrected]

The non-linearity is measured on the last segment: on its raw ramps, as ExoTiC-MIRI's documentation
has it, or (`--corrected`) on ramps that went through the same steps as those it is applied to.
"""

import sys

from bright import extracted, fitted_rates, flagged_ramps, output_and_segments, save
from jwst.datamodels import RampModel

from miri_gpu.reference import SetCustomGain, SetCustomLinearity


def main(output, segments, corrected=False):
    """Reduce the segments of an observation, in order."""
    last = RampModel(segments[-1])
    n_groups = last.meta.exposure.ngroups
    gain = SetCustomGain().call(last, gain_value=3.1)
    linearity = SetCustomLinearity().call(
        flagged_ramps(segments[-1]) if corrected else last,
        group_idx_start_fit=10,
        group_idx_end_fit=40,
        group_idx_start_derive=10,
        group_idx_end_derive=n_groups - 1,
        row_idx_start_used=300,
        row_idx_end_used=380,
    )
    parts = []
    for segment in segments:
        rates = fitted_rates(
            flagged_ramps(segment),
            gain,
            drop_groups=[*range(10), n_groups - 1],
            override_linearity=linearity,
        )
        wavelength, part = extracted(rates, width=3)
        parts.append(part)
    save(output, wavelength, parts)


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--corrected"]
    main(*output_and_segments(arguments), corrected="--corrected" in sys.argv)
