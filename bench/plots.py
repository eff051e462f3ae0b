"""The report's plots, as SVG files beside it. Without matplotlib there are none, and the report says so."""

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from figures import Lines

FOLDER: Final = Path(__file__).parent / "plots"
_COLOURS: Final = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#8c564b", "#e377c2")


def can_draw() -> bool:
    return find_spec("matplotlib") is not None


def drawn(lines: Lines) -> Path:
    """The file. Drawn anew from the same figures it has the same bytes."""
    import matplotlib as mpl  # noqa: PLC0415 - only who draws needs it

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": lines.name, "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after its back end is chosen

    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for colour, (label, points) in zip(_COLOURS, lines.lines.items(), strict=False):
        x = [each[0] for each in points]
        axes.plot(x, [each[1] for each in points], marker="o", markersize=3, label=label, color=colour)
        axes.fill_between(x, [each[2] for each in points], [each[3] for each in points], alpha=0.15, color=colour)
    if lines.log_x:
        axes.set_xscale("log")
    ticks = sorted({each[0] for points in lines.lines.values() for each in points})
    axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    axes.minorticks_off()
    if lines.level is not None:
        axes.axhline(lines.level, color="#888888", linewidth=0.8, linestyle="--")
    axes.set_ylim(bottom=0)
    axes.set(title=lines.title, xlabel=lines.x, ylabel=lines.y)
    axes.grid(visible=True, linewidth=0.3)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{lines.name}.svg"
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    # The library leaves blanks at the ends of lines.
    path.write_text("\n".join(each.rstrip() for each in path.read_text().splitlines()) + "\n")
    return path
