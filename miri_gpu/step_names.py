"""The Steps by name, for stpipe's command line: what `strun clean_outliers ...` looks up."""

_NAMES = {
    "reference": {
        "GetDefaultGain": "get_default_gain",
        "GetDefaultReadNoise": "get_default_readnoise",
        "GetIntegrationTimes": "get_integration_times",
        "GetWavelengthMap": "get_wavelength_map",
        "SetCustomGain": "set_custom_gain",
        "SetCustomLinearity": "set_custom_linearity",
    },
    "stage_1": {
        "DropGroupsStep": "drop_groups",
        "DropIntegrationsStep": "drop_integrations",
        "GroupBackgroundSubtractStep": "group_background_subtract",
        "ReferencePixelStep": "reference_pixel",
        "RegroupStep": "regroup",
    },
    "stage_2": {
        "AlignSpectraStep": "align_spectra",
        "BackgroundSubtractStep": "background_subtract",
        "CleanOutliersStep": "clean_outliers",
        "Extract1DBoxStep": "extract_1d_box",
        "Extract1DOptimalStep": "extract_1d_optimal",
        "InspectDQFlagsStep": "inspect_dq_flags",
    },
}


def get_steps() -> list[tuple[str, str, bool]]:
    """Class, alias and whether it is a pipeline, of every Step; imports none of them."""
    return [
        (f"miri_gpu.{module}.{name}", alias, False)
        for module, names in _NAMES.items()
        for name, alias in names.items()
    ]
