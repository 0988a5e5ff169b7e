"""A local CRDS cache: rules that lead from the simulated exposure to its reference files.

With CRDS_PATH and CRDS_CONTEXT set to it, any step or script finds its references offline.
"""

import hashlib
from pathlib import Path

CONTEXT = "jwst_0001.pmap"
USE_AFTER = "2020-01-01 00:00:00"

# reference types that steps ask for and that an LRS slitless observation does without
NOT_APPLICABLE = (
    "abvegaoffset", "apcorr", "area", "barshadow", "bkg", "camera", "chromcorr", "collimator",
    "cubepar", "dflat", "disperser", "extract1d", "fflat", "fore", "fpa", "fringe", "fringefreq",
    "ifufore", "ifupost", "ifuslicer", "ipc", "lastframe", "mrsptcorr", "mrsxartcorr", "msa",
    "msaoper", "nrm", "ote", "pastasoss", "pathloss", "persat", "photom", "pictureframe", "psf",
    "psfmask", "refpix", "regions", "sflat", "sirskernel", "speckernel", "specprofile",
    "spectrace", "straymask", "superbias", "throughput", "trapdensity", "trappars", "tsophot",
    "wavecorr", "wavelengthrange", "wavemap", "wfssbkg",
)  # fmt: skip

SERVER_CONFIG = {
    "observatory": "jwst",
    "operational_context": CONTEXT,
    "latest_context": CONTEXT,
    "bad_files_list": [],
    "bad_files": "",
    "force_remote_mode": False,
    "last_synced": "2025-01-01 00:00:00",
    "crds_version": {"str": "simulated"},
}


def reference_folder(cache: Path) -> Path:
    """Where the reference files of a cache lie."""
    return cache / "references" / "jwst" / "miri"


def reference_name(kind: str, suffix: str) -> str:
    """File name of a reference, as CRDS names them."""
    return f"jwst_miri_{kind}_0001{suffix}"


def write_rules(cache: Path, references: dict[str, str]) -> None:
    """Write configuration and mappings that select `references` (type -> file name)."""
    config, mappings = cache / "config" / "jwst", cache / "mappings" / "jwst"
    config.mkdir(parents=True, exist_ok=True)
    mappings.mkdir(parents=True, exist_ok=True)
    (config / "server_config").write_text(repr(SERVER_CONFIG) + "\n")
    (config / "ref_cache_subdir_mode").write_text("instrument\n")

    rules = dict.fromkeys((*NOT_APPLICABLE, *parameter_types()), "N/A")
    for kind, file_name in references.items():
        rules[kind] = reference_name(kind, ".rmap")
        (mappings / rules[kind]).write_text(reference_rule(kind, rules[kind], file_name))
    imap = CONTEXT.replace("jwst_", "jwst_miri_").replace(".pmap", ".imap")
    rules = {kind: rules[kind] for kind in sorted(rules)}
    (mappings / imap).write_text(mapping_text(mapping_header("INSTRUMENT", imap), rules))
    header = mapping_header("PIPELINE", CONTEXT)
    (mappings / CONTEXT).write_text(mapping_text(header, {"MIRI": imap}))


def parameter_types() -> list[str]:
    """The pars-* types, one for each step that is installed."""
    from importlib.metadata import entry_points

    names = set()
    for entry in entry_points(group="stpipe.steps"):
        names |= {path.rsplit(".", 1)[-1].lower() for path, *_ in entry.load()()}
    return [f"pars-{name}" for name in sorted(names)]


def mapping_header(mapping: str, name: str) -> dict:
    """Header of a rules file: pipeline and instrument mappings differ in a few keys."""
    header = {"mapping": mapping, "observatory": "JWST", "name": name}
    header["derived_from"] = "simulation"
    if mapping == "PIPELINE":
        return header | {"parkey": ("META.INSTRUMENT.NAME",)}
    return header | {"instrument": "MIRI", "parkey": ("REFTYPE",)}


def reference_rule(kind: str, name: str, file_name: str) -> str:
    """Text of an rmap that selects one file for MIRIMAGE and any date."""
    header = {
        "filekind": kind.upper(),
        "instrument": "MIRI",
        "mapping": "REFERENCE",
        "derived_from": "simulation",
        "name": name,
        "observatory": "JWST",
        "parkey": (
            ("META.INSTRUMENT.DETECTOR",),
            ("META.OBSERVATION.DATE", "META.OBSERVATION.TIME"),
        ),
    }
    selector = (
        "Match({\n"
        "    ('MIRIMAGE',) : UseAfter({\n"
        f"        {USE_AFTER!r} : {file_name!r},\n"
        "    }),\n"
        "})\n"
    )
    return with_checksum(header, selector)


def mapping_text(header: dict, rules: dict[str, str]) -> str:
    """Text of a pmap or imap: a header and a plain dictionary of rules."""
    return with_checksum(header, dictionary_text(rules) + "\n")


def dictionary_text(items: dict) -> str:
    """A dictionary as CRDS writes it, one item to a line."""
    return "{\n" + "".join(f"    {k!r} : {v!r},\n" for k, v in items.items()) + "}"


def with_checksum(header: dict, selector: str) -> str:
    """Join header and selector; the header carries the SHA-1 of all other lines."""

    def text(header):
        return f"header = {dictionary_text(header)}\n\nselector = {selector}"

    checksum = hashlib.sha1(text(header).encode()).hexdigest()
    return text(header | {"sha1sum": checksum})
