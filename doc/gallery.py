"""Order of the examples, and the pictures' alternative texts, for sphinx-gallery."""

from pathlib import Path

from matplotlib import pyplot as plt
from sphinx_gallery.scrapers import figure_rst

#: Folders of doc/examples in the order of the sections, with their examples in order.
SECTIONS = {
    "first_steps": [
        "plot_two_files.py",
        "plot_syn_to_deep.py",
        "plot_reading_the_map.py",
        "plot_default_weights.py",
    ],
    "trust": ["plot_verdict.py", "plot_uncertainty.py", "plot_five_contrasts.py"],
    "difficult": [
        "plot_affine_any_pose.py",
        "plot_masks_and_lesions.py",
        "plot_large_deformation.py",
        "plot_landmarks.py",
    ],
    "diffusion": [
        "plot_motion_correction.py",
        "plot_epi_correction.py",
        "plot_two_channels.py",
        "plot_tensors_and_fods.py",
        "plot_tensor_registration.py",
        "plot_bundles.py",
    ],
    "studies": [
        "plot_study_report.py",
        "plot_template.py",
        "plot_chain_of_maps.py",
        "plot_warp_to_ants.py",
    ],
    "networks": ["plot_train_on_your_images.py", "plot_four_networks.py"],
    "method": ["plot_learned_registration.py", "plot_benchmark.py"],
}

SECTION_ORDER = [f"examples/{folder}" for folder in SECTIONS]


class ExampleOrder:
    """Key that sorts the examples of a folder as in `SECTIONS`."""

    def __init__(self, src_dir):
        self.names = SECTIONS.get(Path(src_dir).name, [])

    def __call__(self, filename):
        """Place of an example; a `ValueError` tells that it is not in the table."""
        return self.names.index(filename)


def scrape_figures(block, block_vars, gallery_conf):
    """Save the open figures; the label of a figure is its alternative text.

    Parameters
    ----------
    block : Block
        The block of code that was executed.
    block_vars : dict
        Its variables: the paths of the pictures among them.
    gallery_conf : dict
        The configuration of the gallery.

    Returns
    -------
    rst : str
        The pictures, one below the other.

    Raises
    ------
    ValueError
        If a figure has no label.
    """
    pictures = []
    for number in plt.get_fignums():
        figure = plt.figure(number)
        if not figure.get_label():
            source = Path(block_vars["src_file"]).name
            raise ValueError(f"{source}: a figure has no label that describes it")
        path = next(block_vars["image_path_iterator"])
        figure.savefig(path)
        text = " ".join(figure.get_label().split())
        paths = [{0: path}]
        pictures.append(figure_rst([path], gallery_conf["src_dir"], text, paths))
    plt.close("all")
    return "\n".join(pictures)


def _get_sg_image_scraper():
    """What sphinx-gallery calls for the scraper named "gallery"."""
    return scrape_figures
