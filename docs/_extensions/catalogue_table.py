"""The directive ``catalogue_table``: one of the catalogue's dictionaries as a table, a row for each reason."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from flaskthreads_autopatch import catalogue


class CatalogueTable(SphinxDirective):
    """Takes the dictionary's name, and the two titles, parted by ``|``, as its content."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        entries: dict[str, str] = getattr(catalogue, self.arguments[0])
        by_reason: dict[str, list[str]] = {}
        for entry, reason in entries.items():
            by_reason.setdefault(reason, []).append(entry)

        group = nodes.tgroup("", nodes.colspec(colwidth=50), nodes.colspec(colwidth=50), cols=2)
        titles = [[nodes.Text(title.strip())] for title in self.content[0].split("|")]
        group += nodes.thead("", _row(titles))
        group += nodes.tbody(
            "", *(_row([_literals(found), [nodes.Text(reason)]]) for reason, found in by_reason.items())
        )
        return [nodes.table("", group, classes=["catalogue"])]


def _row(cells: list[list[nodes.Node]]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells))


def _literals(entries: list[str]) -> list[nodes.Node]:
    parts: list[nodes.Node] = []
    for entry in entries:
        parts += [nodes.literal(entry, entry), nodes.Text(" ")]
    return parts


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("catalogue_table", CatalogueTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
