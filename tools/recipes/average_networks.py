"""Averages the weights of two networks, the second of which was tuned from the first.

    python -m tools.recipes.average_networks FIRST.npz WEIGHTS.pt --output FILE.npz

FIRST is a file or the name of a network that comes with the package, WEIGHTS the file
``mean.pt`` of train_pyramid_pairs.py, a training that began from FIRST. The average has
``(1 - part) * FIRST + part * WEIGHTS`` and FIRST's card as the part "before" of its
recipe. Between two networks on one path of training, such an average keeps what the
first could do and the second has partly lost (Wortsman et al., "Robust fine-tuning of
zero-shot models", CVPR 2022, arXiv:2109.01903).
"""

import argparse
import json
from pathlib import Path

import torch

from dipy_dl_reg import load_model, load_network, save_network
from dipy_dl_reg.networks.pretrained import WEIGHTS


def average_weights(first, second, part):
    """Weights between two state dicts of one architecture."""
    if first.keys() != second.keys():
        raise ValueError(f"weights differ: {sorted(first.keys() ^ second.keys())}")
    return {name: torch.lerp(first[name], second[name], part) for name in first}


def make_average(network, weights, part, card):
    """Change a network to the average with other weights, and describe it."""
    network.load_state_dict(average_weights(network.state_dict(), weights, part))
    recipe = {"command": card["command"], "part": part, "second": card.get("training")}
    recipe["before"] = network.card
    rest = {k: v for k, v in card.items() if k not in ("command", "training")}
    network.card = {**network.card, **rest, "recipe": recipe}
    return network


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("first", help="file or name of a network")
    add("weights", type=Path, help="mean.pt of a training that began from it")
    add("--part", type=float, default=0.5, help="of the second in the average")
    add("--card", type=Path, help="JSON: licence, command, data, training and scores")
    add("--output", type=Path, required=True)
    return parser.parse_args()


def main():
    """Write the average of two networks."""
    arguments = parse_arguments()
    load = load_model if arguments.first in WEIGHTS else load_network
    weights = torch.load(arguments.weights, map_location="cpu", weights_only=True)
    card = {"command": "python -m tools.recipes.average_networks"}
    if arguments.card is not None:
        card |= json.loads(arguments.card.read_text())
    network = make_average(load(arguments.first), weights, arguments.part, card)
    save_network(arguments.output, network, overwrite=True)


if __name__ == "__main__":
    main()
