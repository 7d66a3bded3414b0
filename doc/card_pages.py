"""Sphinx extension: what pages take from the code when the documentation is built.

The directive ``model-card`` is a table about a trained network, read from its file. The
role ``constant`` is the value of a constant, so that a formula agrees with the code::

    .. model-card:: pyramid-brain

    :constant:`geometry.fold_repair.LEAST_JACOBIAN`
"""

from pathlib import Path
from pkgutil import resolve_name

from docutils import nodes
from sphinx.util.docutils import SphinxDirective


def load(name):
    """Network and entry of the table of trained networks."""
    from dipy_dl_reg.networks import pretrained

    if name == "anatomy":
        return pretrained.load_anatomy(), pretrained.ANATOMY
    return pretrained.load_model(name), pretrained.WEIGHTS[name]


def card_rows(name):
    """Headings and texts of the card of a network."""
    from dipy_dl_reg.networks import pretrained

    network, weights = load(name)
    card, recipe = network.card, network.card["recipe"]
    count = sum(values.numel() for values in network.parameters())
    size = (Path(pretrained.__file__).parent / "trained" / weights.file).stat().st_size
    options = ", ".join(f"{key} {value}" for key, value in network.arguments.items())
    yield "Purpose", weights.about
    yield "Architecture", f"{type(network).__name__} ({options})"
    yield "Size", f"{count:,} parameters; {size / 1e6:.1f} MB"
    yield "Input", describe_values(card["preprocessing"])
    yield "Data", describe_data(card)
    for heading, part in trainings(card):
        yield heading, describe_training(part)
    if "part" in recipe:
        part = 100 * recipe["part"]
        yield "Weights", f"mean of the two trainings, {part:g} % of the second"
    yield "Validation", describe_values(scores(card))
    yield "Licence", card["licence"]


def describe_values(values):
    """Keys and values as text."""
    texts = {
        key.replace("_", " "): f"{value:.3g}" if isinstance(value, float) else value
        for key, value in values.items()
    }
    return "; ".join(f"{key}: {value}" for key, value in texts.items())


def describe_data(card):
    """What the network was trained on."""
    data = card.get("data")
    if isinstance(data, list):
        return "; ".join(data)
    drawn = "random shapes, drawn in training; no image of a person"
    maps = "images drawn from label maps of SynthSeg (Apache-2.0); no real image"
    return data or (maps if "SynthSeg" in card["licence"] else drawn)


def trainings(card):
    """The recipes of the trainings, with headings."""
    recipe = card["recipe"]
    if "second" in recipe:
        yield "First training", recipe["before"]["recipe"]
        yield "Second training", recipe["second"]
    else:
        yield "Training", recipe


def describe_training(recipe):
    """Steps, loss, device and command of a training."""
    words = []
    for stage in recipe.get("stages", ()):
        words.append(
            f"{stage['steps']} steps at {stage['spacing']:g} mm, batches of "
            f"{stage['batch_size']}, weight of the penalty {stage['weight']:g}"
        )
    if not words:
        words.append(f"{recipe['steps']} steps")
    for key in ("pairs", "loss", "seconds", "processes", "device", "seed", "torch"):
        if recipe.get(key) is not None:
            words.append(f"{key} {recipe[key]}" if key != "pairs" else recipe[key])
    return "; ".join([*words, f"``{recipe['command']}``"])


def scores(card):
    """Values on held-out data; of the first training, if the file has no other."""
    before = card["recipe"].get("before", {}).get("scores")
    if card["scores"]:
        return card["scores"]
    return {f"{key}, first training": value for key, value in (before or {}).items()}


def constant(name):
    """Value of a constant, named by module, name and the key of an entry, as text."""
    place, _, key = name.partition("[")
    value = resolve_name(f"dipy_dl_reg.{place}")
    if key:
        key = key.rstrip("]")
        value = value[int(key) if key.isdigit() else key]
    return f"{value:g}" if isinstance(value, float) else str(value)


def constant_role(name, rawtext, text, lineno, inliner, options=None, content=None):
    """The role."""
    try:
        return [nodes.inline(rawtext, constant(text))], []
    except (AttributeError, ImportError, KeyError, IndexError) as error:
        message = inliner.reporter.error(f"constant {text}: {error!r}", line=lineno)
        return [inliner.problematic(rawtext, rawtext, message)], [message]


class ModelCard(SphinxDirective):
    """The directive."""

    required_arguments = 1

    def run(self):
        lines = [".. list-table::", "   :widths: 20 80", "   :class: model-card", ""]
        for heading, text in card_rows(self.arguments[0]):
            lines += [f"   * - {heading}", f"     - {text}"]
        return self.parse_text_to_nodes("\n".join(lines) + "\n")


def setup(app):
    app.add_directive("model-card", ModelCard)
    app.add_role("constant", constant_role)
    return {"parallel_read_safe": True, "version": "1"}
