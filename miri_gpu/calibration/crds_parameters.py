"""What the rules of CRDS want to know of an observation, taken from its primary header.

The jwst steps tell CRDS all that a data model holds. To build one takes a second, so the rules are
asked which parameters they select by, and those are looked up under their FITS keywords. A model
answers in the end where the rules ask for something else, or a value is out of the ordinary.
"""

import logging
import warnings
from collections.abc import Iterable
from typing import Any

log = logging.getLogger(__name__)

# A parameter by its name in the JWST data models: its FITS keyword, its type, and the values that
# it has in this mode where a model takes only some (and passes over all others).
_KEYWORDS: dict[str, tuple[str, type, tuple[str, ...]]] = {
    "meta.instrument.name": ("INSTRUME", str, ("MIRI",)),
    "meta.instrument.detector": ("DETECTOR", str, ("MIRIMAGE",)),
    "meta.instrument.filter": ("FILTER", str, ("P750L",)),
    "meta.instrument.channel": ("CHANNEL", str, ("N/A",)),
    "meta.instrument.band": ("BAND", str, ("N/A",)),
    "meta.instrument.coronagraph": ("CORONMSK", str, ("NONE",)),
    "meta.instrument.lamp_state": ("LAMP", str, ()),
    "meta.exposure.type": ("EXP_TYPE", str, ("MIR_LRS-SLITLESS",)),
    "meta.exposure.readpatt": ("READPATT", str, ("FAST", "FASTR1", "SLOW", "SLOWR1")),
    "meta.exposure.ngroups": ("NGROUPS", int, ()),
    "meta.subarray.name": ("SUBARRAY", str, ("SLITLESSPRISM", "SUBPRISM")),
    "meta.visit.type": ("VISITYPE", str, ("PRIME_TARGETED_FIXED", "GENERIC")),
    "meta.visit.tsovisit": ("TSOVISIT", bool, ()),
    "meta.observation.date": ("DATE-OBS", str, ()),
    "meta.observation.time": ("TIME-OBS", str, ()),
}
# Some rules ask for these, but no model has them.
_NOWHERE = ("reftype", "meta.detector", "meta.instrument.exp_type")


def crds_parameters(header, asked: Iterable[str] | None = None) -> dict[str, Any]:
    """What CRDS needs to know of an observation to choose its reference files.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Primary header of a segment.
    asked : names of the parameters that the rules select by, in any case, or None
        From `asked_parameters`.

    Returns
    -------
    dict : values by the parameters' names in the data models; what the header lacks is absent
    """
    if asked is None:
        return _parameters_of_model(header)
    parameters = {}
    for name in sorted({name.lower() for name in asked}):
        if name in _NOWHERE:
            continue
        keyword, kind, values = _KEYWORDS.get(name, ("", str, ()))
        if keyword and keyword not in header:
            continue
        value = header.get(keyword)
        if type(value) is not kind or (values and value not in values):
            log.debug("a data model is built for CRDS: %s is %r", keyword or name, value)
            return _parameters_of_model(header)
        parameters[name] = value
    return parameters


def asked_parameters(context: str) -> list[str] | None:
    """The parameters that the rules of a context select the files of this instrument by.

    Returns
    -------
    list of str, or None where this cannot be known: the rules are not on this machine yet, or a
    server applies them
    """
    from crds.core import heavy_client
    from crds.core.exceptions import CrdsError

    mode, _ = heavy_client.get_processing_mode("jwst")
    if mode != "local":
        return None
    try:
        rules = heavy_client.get_symbolic_mapping(context).get_imap("MIRI")
        return ["meta.instrument.name", *rules.get_required_parkeys()]
    except (CrdsError, OSError, AttributeError) as error:
        log.debug("a data model is built for CRDS: %s cannot be asked: %s", context, error)
        return None


def _parameters_of_model(header) -> dict[str, Any]:
    """All that the data model of the jwst steps finds in a header."""
    from astropy.io import fits
    from stdatamodels.jwst import datamodels

    # a model of the header only: a segment opened as a model would be read as a whole
    hdus = fits.HDUList([fits.PrimaryHDU(header=header)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a real header breaks some rule or other of the schema
        with datamodels.RampModel(hdus) as model:
            return model.get_crds_parameters()
