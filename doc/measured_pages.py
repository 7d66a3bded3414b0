"""Sphinx extension: the role ``measured`` and the directive ``measured-table``.

The first lines of measured.py describe how a figure is named. A table has a row for
each line of its content, ``Label = key | key``, and columns
``Heading = column format`` separated by semicolons. A column is a mean with its 95 %
interval, or the statistic that is named; before a colon stand the cases, if they are
not all. A ``*`` in the keys is replaced by the column's ``[key]``::

    .. measured-table:: learning
       :caption: Overlap of T1 images at 2 mm
       :first: Setting
       :columns: Dice = dice .3f; kept out = kept out: dice .3f; s = median wall_s .1f

       default = T1 2 mm | default
       gain over the network alone = T1 2 mm | default - network alone

    .. measured-table:: learning
       :columns: default = [default] dice .3f; network alone = [network alone] dice .3f

       T1 to T1 = T1 2 mm | *

``:stored:`lesions.txt` `` is the commit that the first line of a text names.
``measured-lines`` makes a table of a file that is text only: a row is
``Label = beginning of the line``, a column ``Heading = place format``.

Below the table stand the people, the machine, the versions, the commit and a link to
the full table.
"""

from docutils import nodes
from docutils.parsers.rst import directives
from measured import FOLDER, figure, read_table
from measured_tables import describe, stored_with, summarize, summarize_lines
from sphinx.util.docutils import SphinxDirective


def measured_role(name, rawtext, text, lineno, inliner, options=None, content=None):
    """The role: the figure as text."""
    note_files(inliner.document.settings.env)
    try:
        return [nodes.inline(rawtext, figure(text), classes=["measured"])], []
    except (ValueError, KeyError) as error:
        message = inliner.reporter.error(f"measured: {error}", line=lineno)
        return [inliner.problematic(rawtext, rawtext, message)], [message]


def stored_role(name, rawtext, text, lineno, inliner, options=None, content=None):
    """The role: the commit that a text names in its first line."""
    note_files(inliner.document.settings.env)
    try:
        return [nodes.inline(rawtext, stored_with(text))], []
    except (ValueError, OSError) as error:
        message = inliner.reporter.error(f"stored: {error}", line=lineno)
        return [inliner.problematic(rawtext, rawtext, message)], [message]


def note_files(env):
    """Pages with figures are built again if a file of results has changed."""
    for path in (*FOLDER.glob("*.json"), *FOLDER.glob("*.txt")):
        env.note_dependency(str(path))


class MeasuredTable(SphinxDirective):
    """The directive: rows and columns of a table, and a note about its source."""

    required_arguments = 1
    has_content = True
    option_spec = {
        "columns": directives.unchanged_required,
        "caption": directives.unchanged_required,
        "first": directives.unchanged_required,
    }

    def run(self):
        note_files(self.env)
        first = self.options.get("first", "")
        lines = [line for line in self.content if line.strip()]
        try:
            table = read_table(self.arguments[0])
            rows, cases = summarize(table, first, self.options["columns"], lines)
            text = list_table(self.options.get("caption", ""), rows)
        except (ValueError, KeyError) as error:
            raise self.error(f"measured-table: {error}") from error
        cells = [cell for row in rows[1:] for cell in row[1:]]
        intervals = any(cell.endswith((")", "]")) for cell in cells)
        note = describe(table, cases, intervals=intervals)
        text += f"\n.. rst-class:: measured-source\n\n{note}\n"
        return self.parse_text_to_nodes(text)


class MeasuredLines(SphinxDirective):
    """The directive for a table of a text: lines and places of numbers."""

    required_arguments = 1
    has_content = True
    option_spec = MeasuredTable.option_spec | {"source": directives.unchanged}

    def run(self):
        file, first = self.arguments[0], self.options.get("first", "")
        lines = [line for line in self.content if line.strip()]
        self.env.note_dependency(str(FOLDER / file))
        try:
            rows = summarize_lines(file, first, self.options["columns"], lines)
            stored = stored_with(file)
        except (ValueError, KeyError) as error:
            raise self.error(f"measured-lines: {error}") from error
        text = list_table(self.options.get("caption", ""), rows)
        note = self.options.get("source", "").rstrip()
        note += f" {stored[0].upper()}{stored[1:]}."
        note += f" Full table: :download:`{file} <benchmark/{file}>`."
        return self.parse_text_to_nodes(
            f"{text}\n.. rst-class:: measured-source\n\n{note.strip()}\n"
        )


def list_table(caption, rows):
    """The rows as a ``list-table``, headings first."""
    lines = [f".. list-table:: {caption}", "   :header-rows: 1"]
    lines += ["   :class: measured-table", ""]
    for row in rows:
        for place, cell in enumerate(row):
            lines.append(f"   {'* ' if place == 0 else '  '}- {cell}".rstrip())
    return "\n".join(lines) + "\n"


def setup(app):
    app.add_role("measured", measured_role)
    app.add_role("stored", stored_role)
    app.add_directive("measured-table", MeasuredTable)
    app.add_directive("measured-lines", MeasuredLines)
    return {"parallel_read_safe": True, "version": "1"}
