"""Which reference files belong to an observation: as CRDS chooses, or as a folder holds them."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

from miri_gpu.calibration.bundle import NOT_AVAILABLE
from miri_gpu.calibration.crds_parameters import asked_parameters, crds_parameters
from miri_gpu.errors import CalibrationError

_CRDS_HINT = (
    "CRDS_PATH names the folder for reference files, CRDS_SERVER_URL=https://jwst-crds.stsci.edu "
    "the server they are fetched from; or give the files with --references (of simulated segments: "
    "--references DIRECTORY/crds)"
)
_IN_CRDS_CACHE = Path("references", "jwst", "miri")  # where a CRDS cache keeps its files


def choose_from_crds(header, types: Iterable[str]) -> tuple[dict[str, Path | None], str]:
    """Ask CRDS for the files of an observation, with the parameters that the jwst steps use.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Primary header of a segment.
    types : reference types, such as "dark"

    Returns
    -------
    files : path of each type, None where CRDS says that there is none to be used
    context : the CRDS context that chose them

    Raises
    ------
    CalibrationError
        Where CRDS is out of reach, or knows no file of a type.
    """
    from crds.core import utils
    from stpipe import crds_client

    # CRDS remembers what the environment said first; a caller may have changed it since
    utils.clear_function_caches()
    with _crds_errors("CRDS: expected a server or a local cache"):
        context = crds_client.get_context_used("jwst")
        asked = asked_parameters(context)
    parameters = crds_parameters(header, asked)

    def paths_of(*reftypes: str) -> dict[str, str]:
        names = ", ".join(reftypes)
        with _crds_errors(f"{names}: expected a reference file from CRDS ({context})"):
            return crds_client.get_multiple_reference_paths(parameters, reftypes, "jwst")

    types = list(types)
    try:
        found = paths_of(*types)
    except CalibrationError:  # of which type it is, shows when each is asked for by itself
        found = {}
        for reftype in types:
            found |= paths_of(reftype)
    return {reftype: _existing(reftype, found[reftype]) for reftype in types}, context


def choose_from_folder(folder: str | Path, types: Iterable[str]) -> dict[str, Path | None]:
    """Take the files of a folder by what they say they are (REFTYPE, in ASDF files meta.reftype).

    Files of other types are passed over, and so are files that are neither FITS nor ASDF by name.

    Raises
    ------
    CalibrationError
        Where the folder does not exist, or lacks a type, or has several files of it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CalibrationError(f"references: expected a folder, got {folder}")
    if (folder / _IN_CRDS_CACHE).is_dir():
        folder = folder / _IN_CRDS_CACHE
    found: dict[str, list[Path]] = {}
    paths = (path for ending in ("fits", "fits.gz", "asdf") for path in folder.glob(f"*.{ending}"))
    for path in sorted(paths):
        found.setdefault(_reference_type(path), []).append(path)
    files: dict[str, Path | None] = {}
    for reftype in types:
        paths = found.get(reftype, [])
        if len(paths) != 1:
            names = ", ".join(path.name for path in paths) or "none"
            hint = "" if paths else _cache_below(folder)
            raise CalibrationError(
                f"references: expected one {reftype} file in {folder}, got {names}{hint}"
            )
        files[reftype] = paths[0]
    return files


def _cache_below(folder: Path) -> str:
    """Advice which folder to give instead, where one in it is a CRDS cache."""
    for files in folder.glob(f"*/{_IN_CRDS_CACHE.as_posix()}"):
        return f" (the CRDS cache {folder / files.relative_to(folder).parts[0]} may be meant)"
    return ""


def overridden(overrides: Mapping[str, str | Path | None]) -> dict[str, Path | None]:
    """The files that the caller gave for some types; None or "N/A" leaves a type out."""
    return {
        reftype: None if path is None or str(path) == NOT_AVAILABLE else _existing(reftype, path)
        for reftype, path in overrides.items()
    }


def _existing(reftype: str, path: str | Path) -> Path | None:
    if str(path) == NOT_AVAILABLE:
        return None
    if not Path(path).is_file():
        raise CalibrationError(f"{reftype}: expected a reference file, got no such file: {path}")
    return Path(path)


def _reference_type(path: Path) -> str:
    if path.suffix == ".asdf":
        return _asdf_reference_type(path)
    from astropy.io import fits

    try:
        return str(fits.getval(path, "REFTYPE")).strip().lower()
    except KeyError:
        return ""
    except OSError as error:
        raise CalibrationError(f"{path}: not a readable FITS file ({error})") from None


def _asdf_reference_type(path: Path) -> str:
    import asdf

    try:
        meta = asdf.util.load_yaml(path).get("meta")  # only the text: no model is built
        return str((meta or {}).get("reftype", "")).strip().lower()
    except (OSError, ValueError, AttributeError, RuntimeError) as error:
        raise CalibrationError(f"{path}: not a readable ASDF file ({error})") from None


@contextlib.contextmanager
def _crds_errors(expectation: str):
    """Turn whatever CRDS does on failure (log, print, raise, exit) into a CalibrationError."""
    from crds.core import config
    from crds.core.exceptions import CrdsError

    logger = logging.getLogger("CRDS")
    logger.addFilter(_worth_saying)
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # stpipe's use of CRDS
            yield
    except SystemExit:  # how CRDS takes it that there is neither server nor cache
        cache = config.get_crds_path()
        raise CalibrationError(f"{expectation}, got neither ({cache}); {_CRDS_HINT}") from None
    except (CrdsError, OSError, AssertionError) as error:  # it asserts a context's name
        said = " ".join(str(error).split())
        raise CalibrationError(f"{expectation}, got: {said}; {_CRDS_HINT}") from None
    finally:
        logger.removeFilter(_worth_saying)


def _worth_saying(record: logging.LogRecord) -> bool:
    """Of what CRDS logs, warnings and downloads; its errors are raised instead."""
    return record.levelno == logging.WARNING or "Fetching" in record.getMessage()
