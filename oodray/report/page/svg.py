"""Figures of matplotlib as SVG inside of a page, in the page's own colours and fonts.

Why matplotlib: it is a dependency already, it is well kept, and a chart of it weighs 10 to 40 KB. A bundle of plotly
weighs 1 MB or more in each report, those of Vega 0.8 MB, and both draw nothing before their script has run. What the
page's own script adds (hide a score, switch to a logarithmic axis) needs no more than ids. These charts can be
printed, and searched for text.

Colours of a figure are names of the page's style sheet: `colour("ink")` is a placeholder that becomes `var(--ink)`, so
that a chart is dark where the page is.
"""

from __future__ import annotations

import io
import re
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, QUIET, GRID, PAPER = "ink", "quiet", "grid", "paper"
"""Names in the style sheet: text and axes, less of them, lines of the grid, ground."""

SERIES = 8
"""Colours of lines: `series-0` and so on."""

_NAMES = (INK, QUIET, GRID, PAPER, *(f"series-{index}" for index in range(SERIES)), "ood", "known")
_PLACEHOLDERS = {name: f"#0{index:02x}abc" for index, name in enumerate(_NAMES)}
_IDS = re.compile(r'(\bid="|url\(#|href="#)')
_NAME = re.compile(r"[A-Za-z0-9-]+")
_SIZE = re.compile(r'<svg (?:[^>]*?)width="([\d.]+)pt" height="([\d.]+)pt"', re.DOTALL)


def colour(name: str) -> str:
    """The placeholder of a colour of the style sheet, for matplotlib."""
    return _PLACEHOLDERS[name]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in CSS pixels at which its text has the size of the page's."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_visible(False)
    return figure


def style_axes(axes: Axes) -> None:
    """Axes without a box, with a quiet grid."""
    axes.patch.set_visible(False)
    axes.grid(color=colour(GRID), linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", colors=colour(QUIET), labelsize=11, length=3)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(colour(QUIET))
    axes.xaxis.label.set(color=colour(INK), size=12)
    axes.yaxis.label.set(color=colour(INK), size=12)


def svg_of(figure: Figure, name: str, description: str) -> str:
    """The SVG element of a figure, for the inside of a page.

    Args:
        figure: drawn with placeholders of colours.
        name: put before every id, which are those of the whole page: letters, digits and hyphens.
        description: what it shows, for those who do not see it.

    Raises:
        ValueError: the name has another character, which might end an attribute.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for ids")
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "path.simplify": True}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Its style is for a document of its own: in a page it would be every element's.
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    for style_name, placeholder in _PLACEHOLDERS.items():
        text = text.replace(placeholder, f"var(--{style_name})")
    text = re.sub(r"font-family: [^;]*; ", "", text)
    text = _IDS.sub(lambda found: f"{found[1]}{name}--", text)
    text = _SIZE.sub(lambda found: found[0].replace(f'width="{found[1]}pt" height="{found[2]}pt"', ""), text, count=1)
    said = escape(description, quote=True)
    return text.replace("<svg ", f'<svg role="img" aria-label="{said}" ', 1)
