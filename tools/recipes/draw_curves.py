"""Draw the logs of a training, stage by stage.

    python -m tools.recipes.draw_curves LOG.csv LOG.csv ... --output FILE.png

The logs are those that `fit` writes, of one training, in the order of its stages.
"""

import argparse
import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402


def main():
    """One panel for each log: the loss in training and in validation, by step."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("logs", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    chosen = parser.parse_args()
    figure, panels = plt.subplots(
        1, len(chosen.logs), figsize=(3 * len(chosen.logs), 2.6), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for panel, path in zip(panels[0], chosen.logs):
        with path.open() as file:
            rows = list(csv.DictReader(file))
        steps = [int(row["step"]) for row in rows]
        for column, label in (("total", "training"), ("validation", "validation")):
            panel.plot(steps, [float(row[column]) for row in rows], label=label)
        panel.set(title=path.stem, xlabel="step")
    panels[0, 0].set_ylabel("loss")
    panels[0, 0].legend()
    figure.savefig(chosen.output, dpi=90)


if __name__ == "__main__":
    main()
