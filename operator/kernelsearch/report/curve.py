"""The best speed-up over time, drawn by matplotlib as SVG to be put into a page."""

import io
from collections.abc import Sequence

Point = tuple[float, float]


def svg(best: Sequence[Point], attempts: Sequence[Point], end: float) -> str:
    """The best so far as steps until `end` seconds, every timed attempt as a dot; empty when nothing was timed.

    Also empty where matplotlib (extra `report`) is not installed.
    """
    if not best and not attempts:
        return ""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        return ""
    # Texts stay texts, and equal data give equal bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "kernelsearch", "font.family": "sans-serif"}):
        figure = Figure(figsize=(8.5, 3.2), layout="constrained")
        axes = figure.add_subplot()
        axes.axhline(1.0, color="#8c959f", linewidth=1, linestyle="--", label="baseline")
        if attempts:
            axes.plot(*zip(*attempts, strict=True), "o", color="#8250df", alpha=0.5, markersize=4, label="attempt")
        if best:
            seconds, values = zip(*(*best, (max(end, best[-1][0]), best[-1][1])), strict=True)
            axes.step(seconds, values, where="post", color="#1a7f37", linewidth=2, label="best, re-verified")
        axes.set_xlabel("seconds of the search")
        axes.set_ylabel("times as fast")
        axes.set_xlim(0, max(end, 1.0) * 1.02)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="best", frameon=False, fontsize="small")
        written = io.StringIO()
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = written.getvalue()
    return text[text.index("<svg") :]
