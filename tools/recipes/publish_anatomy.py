"""Writes the weights of train_anatomy.py to the file that comes with the package.

    python -m tools.recipes.publish_anatomy --folder FOLDER --maps FILE.npz --output OUT

FOLDER is that of the training, and FILE.npz its label maps. The file also has a card:
the licence, the recipe, the Dice of drawn held-out images, and the mean centroids of
the classes in all label maps, in mm about the middle of a mean brain, with which
`dipy_dl_reg.anatomy.plausibility` compares the maps of an image. The checksum that is
printed belongs in dipy_dl_reg/networks/pretrained.py.
"""

import argparse
from hashlib import sha256
import json
from pathlib import Path

import numpy as np
import torch

from dipy_dl_reg.networks.anatomy_network import AnatomyNetwork, save_anatomy_network
from dipy_dl_reg.networks.pretrained import ANATOMY
from tools.recipes import gpu_drawing as drawing

COMMAND = "python -m tools.recipes.train_anatomy --maps FILE.npz --folder FOLDER"
DATA = (
    "20 label maps of heads of SynthSeg (data/training_label_maps of "
    "https://github.com/BBillot/SynthSeg; LICENSE.txt of commit 66342c1: Apache "
    "License 2.0), of which 3 were held out; no real image"
)
PREPROCESSING = {
    "spacing": 2.0,
    "axes": "RAS",
    "intensity": "divided by the .99 quantile of the values above .02 of the maximum",
}


def compute_centroids(path):
    """Mean centroid of each class (K, 3) over the label maps of a packed file, mm."""
    classes = drawing.make_tables("cpu").classes
    count = len(drawing.NAMES)
    found = []
    for subject in drawing.read_subjects(path, "cpu").values():
        number = classes[subject.labels.long()].numpy()
        sizes = np.maximum(np.bincount(number.ravel(), minlength=count), 1)
        places = [
            np.bincount(number.ravel(), axis.ravel(), minlength=count) / sizes
            for axis in np.indices(number.shape)
        ]
        to_mm = np.linalg.inv(subject.matrix)
        found.append(np.stack(places, 1) @ to_mm[:3, :3].T + to_mm[:3, 3])
    return np.mean(found, 0)


def make_card(state, centroids):
    """The card of the network."""
    held_out = state["rows"][-1]["dice"]
    return {
        "preprocessing": PREPROCESSING,
        "licence": ANATOMY.licence,
        "data": DATA,
        "recipe": {
            "command": f"{COMMAND} --seconds {round(state['elapsed'])}",
            "steps": state["step"],
            "device": "NVIDIA H100",
            "seed": 0,
        },
        "scores": {"Dice of drawn held-out images": round(float(held_out), 3)},
        "centroids": np.round(centroids, 2).tolist(),
    }


def main():
    """Write one file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--maps", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    network = AnatomyNetwork(len(drawing.NAMES))
    weights = torch.load(given.folder / "mean.pt", map_location="cpu")
    network.load_state_dict(weights)
    state = json.loads((given.folder / "state.json").read_text())
    network.card = make_card(state, compute_centroids(given.maps))
    save_anatomy_network(given.output, network)
    print(sha256(given.output.read_bytes()).hexdigest())


if __name__ == "__main__":
    main()
