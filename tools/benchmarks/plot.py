"""Figures of the deformable benchmark: accuracy against time and regularity."""

import numpy as np

#: Horizontal axis: its label, its scale, and the end of the file's name.
AGAINST = {
    "seconds": ("seconds", "log", "time"),
    "sd_log_jacobian": ("standard deviation of log J", "linear", "regularity"),
}
#: Vertical axis: Dice for labelled brains, or the error of known fields.
ACCURACY = {"dice": "Dice", "field_rms": "error of the known field, mm"}


def draw_figures(rows, title, folder, curve=()):
    """Write two PNG files: the median of each method, and its rows in light colours.

    The methods in `curve` differ in smoothness alone. They are connected by a line in
    the figure of regularity; the figure of time shows only the default of them.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    folder.mkdir(parents=True, exist_ok=True)
    for y, y_words in ACCURACY.items():
        here = [row for row in rows if y in row]
        for x, (x_words, scale, name) in AGAINST.items() if here else ():
            figure = Figure(figsize=(7, 5), layout="constrained")
            axes = figure.subplots()
            axes.set(xscale=scale, xlabel=x_words, ylabel=y_words, title=title)
            if scale == "log":
                axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter("{x:g}")
            line = sorted(curve) if x == "sd_log_jacobian" else []
            apart = set(curve) - {"deep"}
            draw_points(axes, [r for r in here if r["method"] not in apart], x, y)
            if line:
                draw_line(axes, [r for r in here if r["method"] in line], x, y)
            words = title.lower().replace(" ", "_")
            figure.savefig(folder / f"{words}_{name}.png", dpi=150)


def draw_line(axes, rows, x, y):
    """Draw a line through the medians of methods, from smooth to rough fields."""
    methods = {row["method"] for row in rows}
    middles = [
        np.median([[r[x], r[y]] for r in rows if r["method"] == method], axis=0)
        for method in methods
    ]
    if len(middles) > 1:
        middles = np.array(sorted(map(tuple, middles)))
        axes.plot(*middles.T, "k.--", lw=1, zorder=2, label="deep, smoother to rougher")
        axes.legend(fontsize="small")


def draw_points(axes, rows, x, y):
    """Draw the rows and the median of each method, in a colour for each method."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    for number, method in enumerate(methods):
        at = np.array([[row[x], row[y]] for row in rows if row["method"] == method])
        style = {"color": f"C{number % 10}", "marker": "os^Dv"[number // 10 % 5]}
        axes.scatter(*at.T, s=14, alpha=0.25, linewidths=0, **style)
        middle = np.median(at, axis=0)
        axes.scatter(*middle, s=60, edgecolors="black", zorder=3, **style)
        axes.annotate(
            method, middle, xytext=(6, 4), textcoords="offset points", fontsize="small"
        )
    axes.grid(alpha=0.3)
