"""How figures look, the same for all of them; no window is ever opened."""

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito: told apart by colour-blind readers
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
INK, GREY = "#222222", "#8A8A8A"

DPI = 200
_WIDTH_IN = 7.1  # two columns of a journal
# around stacked panels: room for labels of two lines on the left, for numbers and a label below
_LEFT_IN, _RIGHT_IN, _BOTTOM_IN, _TOP_IN, _BETWEEN_IN = 0.85, 0.12, 0.48, 0.27, 0.22
_STYLE = {
    "font.size": 9.0,
    "axes.labelsize": 9.0,
    "axes.titlesize": 9.0,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # nothing stands above the panels that a title had to avoid
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "text.color": INK,
}


def styled(plot: Callable) -> Callable:
    """Draw in the style of the house, whatever the user's matplotlib is set to."""

    @wraps(plot)
    def draw(*args, **kwargs):
        from matplotlib import style

        with style.context(["default", _STYLE]):
            return plot(*args, **kwargs)

    return draw


def empty_figure(*, height_in: float) -> "Figure":
    """A figure without panels, as wide as two columns of a journal.

    For panels beside one another, which are too narrow for minor ticks.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")


def stacked_panels(
    n_panels: int, *, height_in: float, ratios=None
) -> tuple["Figure", list["Axes"]]:
    """An empty figure whose panels share their horizontal axis.

    Their place is fixed: to let matplotlib find it takes longer than to draw them.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_IN, height_in))
    panel_in = (height_in - _BOTTOM_IN - _TOP_IN - (n_panels - 1) * _BETWEEN_IN) / n_panels
    grid = {
        "height_ratios": ratios,
        "left": _LEFT_IN / _WIDTH_IN,
        "right": 1 - _RIGHT_IN / _WIDTH_IN,
        "bottom": _BOTTOM_IN / height_in,
        "top": 1 - _TOP_IN / height_in,
        "hspace": _BETWEEN_IN / panel_in,
    }
    panels = figure.subplots(n_panels, 1, sharex=True, squeeze=False, gridspec_kw=grid)
    for axes in panels.flat:
        axes.minorticks_on()
    return figure, list(panels[:, 0])


def note(axes: "Axes", text: str) -> None:
    """A remark above the right end of a panel, where it hides no data."""
    axes.set_title(text, loc="right", fontsize=7.5)
