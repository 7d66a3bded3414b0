"""Tables of metrics, networks and the like, made from the registries of the package.

`command_pages` makes the pages of the commands from their help.

``conf.py`` writes them into ``doc/generated`` when the documentation is built, and the
pages include them, so that a new entry of a registry is also in the documentation.
"""

import inspect
import re


def summary(documented):
    """First sentence of a docstring, without its full stop."""
    text = (inspect.getdoc(documented) or "").partition("\n\n")[0]
    return " ".join(text.split()).rstrip(".")


def yes_or_no(value):
    return "yes" if value else "no"


def metric_rows():
    import dipy_dl_reg
    from dipy_dl_reg.metrics.registry import METRICS

    for name, entry in METRICS.items():
        kind = entry.location.rpartition(".")[2]
        public = kind in dipy_dl_reg.__all__  # only these have a page of their own
        kind = f":class:`~dipy_dl_reg.{kind}`" if public else f"``{kind}``"
        yield f'``"{name}"``', kind, entry.meaning


def regularizer_rows():
    from dipy_dl_reg.metrics.registry import REGULARIZERS, regularizer_by_name

    for name in REGULARIZERS:
        yield f'``"{name}"``', summary(regularizer_by_name(name))


def network_rows():
    from dipy_dl_reg.networks import NETWORKS, network_class

    for name in NETWORKS:
        yield f'``"{name}"``', summary(network_class(name))


def transform_rows():
    from dipy_dl_reg.geometry.affine_transforms.registry import TRANSFORMS

    for name, transform in TRANSFORMS.items():
        yield f'``"{name}"``', transform.meaning


def format_rows():
    from dipy_dl_reg.maps.formats.table import FORMATS

    for entry in FORMATS.values():
        yield (
            entry.description,
            ", ".join(f"``{suffix}``" for suffix in entry.suffixes),
            ", ".join(f"{dim}D" for dim in entry.dimensions),
            yes_or_no(entry.holds_prealign),
            yes_or_no(entry.holds_moving_grid),
        )


def command_rows():
    from dipy_dl_reg import workflows
    from dipy_dl_reg.workflows.commands import COMMANDS

    for name, command in COMMANDS.items():
        yield f"``{name}``", summary(getattr(workflows, command.workflow).run)


#: Headings of the groups of options on the page of a command.
RUBRICS = {"outputs": "What each output file is for"}


def command_page(name):
    """Page of a command: its purpose, recipes, options and outputs, as in its help."""
    from dipy_dl_reg import workflows
    from dipy_dl_reg.workflows.command_line import COMMON, CommandParser
    from dipy_dl_reg.workflows.commands import COMMANDS

    flow = getattr(workflows, COMMANDS[name].workflow)()
    parser = CommandParser(flow, name)
    lines = [f".. _{name}:", "", name, "-" * len(name), "", parser.description, ""]
    lines += [".. code-block:: text", "", f"   {usage_of(parser)}", ""]
    lines += [".. rubric:: Recipes", "", recipes_of(parser), ""]
    for group in parser.groups():
        if group.title != COMMON:
            title = RUBRICS.get(group.title, group.title.capitalize())
            lines += [f".. rubric:: {title}", "", *entries(group)]
    return "\n".join(lines)


def recipes_of(parser):
    """The examples of the help, with their commands as blocks that can be copied."""
    text = "\n".join(parser.examples)
    return re.sub(r"::\n\n(?=    )", ":\n\n.. code-block:: bash\n\n", text)


def common_options():
    """The options that all commands have, and the exit codes."""
    from dipy_dl_reg import workflows
    from dipy_dl_reg.workflows.command_line import COMMON, CommandParser
    from dipy_dl_reg.workflows.exit_codes import EXIT_CODES

    parser = CommandParser(workflows.ApplyDeepFlow(), "dipy_apply_deep")
    (group,) = (group for group in parser.groups() if group.title == COMMON)
    codes = format_table({"Exit code": 15, "Meaning": 85}, EXIT_CODES.items())
    return "\n".join([*entries(group), codes])


def usage_of(parser):
    """The usage in one line."""
    return " ".join(parser.format_usage().removeprefix("usage:").split())


def entries(group):
    """A group of options as a definition list."""
    lines = []
    for option in group.options:
        text = re.sub(r"(?<![\w`])(--?\w+)", r"``\1``", option.text)
        text = re.sub(r"([*|])", r"\\\1", text)
        lines += [f"``{option.name}``", f"   {text}", ""]
    return lines


#: File of each table: columns with their widths, and the function that yields the rows.
TABLES = {
    "metrics": ({"Name": 12, "Class": 40, "Measure": 48}, metric_rows),
    "regularizers": ({"Name": 20, "Penalty": 80}, regularizer_rows),
    "networks": ({"Name": 20, "Architecture": 80}, network_rows),
    "transforms": ({"Name": 30, "Transform": 70}, transform_rows),
    "formats": (
        {
            "Content": 36,
            "File names": 25,
            "Dimensions": 13,
            "Prealign": 11,
            "Grid of moving": 15,
        },
        format_rows,
    ),
    "commands": ({"Command": 30, "Purpose": 70}, command_rows),
}


def format_table(widths, rows):
    """Format a table as reStructuredText."""
    lines = [".. list-table::", "   :header-rows: 1"]
    lines.append(f"   :widths: {' '.join(str(width) for width in widths.values())}")
    lines.append("")
    for cells in [list(widths), *rows]:
        for place, cell in enumerate(cells):
            lines.append(f"   {'* ' if place == 0 else '  '}- {cell}")
    return "\n".join(lines) + "\n"


def write_tables(folder):
    """Write a file for each table, where it differs from the one that is there.

    Parameters
    ----------
    folder : Path
        Created if it does not exist.
    """
    from dipy_dl_reg.workflows.commands import COMMANDS

    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        name: format_table(widths, list(rows()))
        for name, (widths, rows) in TABLES.items()
    }
    texts["command_pages"] = "\n".join(map(command_page, COMMANDS))
    texts["common_options"] = common_options()
    for name, text in texts.items():
        path = folder / f"{name}.inc"
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)
