"""Where figures go: to whoever is looking, and to files; a batch is never kept waiting."""

import logging
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from miri_gpu.files import write_beside
from miri_gpu.plots.style import DPI

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)


def present_figures(figures: Mapping[str, "Figure"], path: str | Path | None) -> list[Path]:
    """Show figures in an interactive session, and save them where there is a path.

    Parameters
    ----------
    figures : dict of name to Figure
    path : a file (its ending says the format), a folder (for one PNG each), or None
        Of several figures for one file, each puts its name before the ending.

    Returns
    -------
    list of Path
        What was written.
    """
    shown = [show_figure(figure) for figure in figures.values()]
    paths = [] if path is None else _file_names(Path(path), figures)
    for target, figure in zip(paths, figures.values(), strict=bool(paths)):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_beside(target, partial(figure.savefig, dpi=DPI))
        log.info("wrote %s", target)
    if not paths and not all(shown):
        log.warning(
            "%s: drawn, but not to be seen: import matplotlib.pyplot in an interactive session, "
            "or give a figure_path",
            ", ".join(figures),
        )
    return paths


def show_figure(figure: "Figure") -> bool:
    """Hand a figure to pyplot where the user has loaded it with an interactive backend.

    The window opens at once and nothing waits for it; `pyplot.show()` of the user does.

    Returns
    -------
    bool
        Whether there was anybody to show it to.
    """
    import matplotlib
    from matplotlib.backends import BackendFilter, backend_registry

    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return False
    silent = backend_registry.list_builtin(BackendFilter.NON_INTERACTIVE)
    if matplotlib.get_backend().lower() in silent:  # what notebooks use is in no list
        return False
    pyplot.figure(FigureClass=lambda **_: figure)  # pyplot makes a window for it
    pyplot.show(block=False)
    return True


def _file_names(path: Path, figures: Mapping[str, "Figure"]) -> list[Path]:
    from matplotlib.backend_bases import FigureCanvasBase

    if path.suffix.removeprefix(".").lower() not in FigureCanvasBase.get_supported_filetypes():
        return [path / f"{name}.png" for name in figures]
    if len(figures) == 1:
        return [path]
    return [path.with_name(f"{path.stem}_{name}{path.suffix}") for name in figures]
