"""Which versions of the packages that a result may depend on are installed."""

import re
from importlib import metadata

from miri_gpu import __version__

PACKAGES = ("numpy", "scipy", "astropy", "xarray", "jwst")
_CUPY_PACKAGES = ("cupy-cuda12x", "cupy-cuda13x", "cupy")  # the last one is built from source


def installed_versions(*more: str) -> dict[str, str]:
    """Our own, and those of the packages, of CuPy and of some more; absent ones are passed over."""
    found = {"miri_gpu": __version__}
    for name in (*PACKAGES, *more, *_CUPY_PACKAGES):
        try:
            found[name] = _version_of(metadata.distribution(name))
        except metadata.PackageNotFoundError:
            continue
    return found


def _version_of(package: metadata.Distribution) -> str:
    """Its version, found without parsing all that it says of itself, which is long."""
    stated = re.search(r"^Version: *(\S+)", package.read_text("METADATA") or "", re.MULTILINE)
    return stated[1] if stated else package.version
