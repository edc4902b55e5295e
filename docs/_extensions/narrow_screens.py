"""Tables, names and signatures that can be read on a narrow screen.

* A table of figures, whose columns but the first are aligned to the right, has the class ``scrolls``, any other one
  ``stacks``: on a narrow screen, ``pages.css`` shows each of its rows as a list, in which each cell has the title of
  its column before it.
* Code without a blank has the class ``name``: it is not broken where it fits into a line by itself. Where it does not,
  and in signatures, it is broken after ``_ . : / ( ,`` and, if it is a very long one, between ``Camel`` and ``Case``.
  So no word is broken in the middle.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

BETWEEN_PARTS = re.compile(r"(?<=[^\W_][_.:/(,])(?=[^\W_]|__\w)")
BETWEEN_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z][a-z])")
LONG_WORDS = re.compile(r"[A-Za-z]{24,}")


class LabelCells(SphinxPostTransform):
    """Give each table its class, and each cell of a table that stacks the title of its column."""

    default_priority = 800
    formats = ("html",)

    def run(self, **kwargs: object) -> None:
        for table in self.document.findall(nodes.table):
            rows = [row.children[1:] for row in table.findall(nodes.row)]
            scrolls = all("text-right" in entry["classes"] for row in rows for entry in row)  # type: ignore[index]
            table["classes"].append("scrolls" if scrolls else "stacks")
            if not scrolls:
                titles = [entry.astext() for head in table.findall(nodes.thead) for entry in head.findall(nodes.entry)]
                for body in table.findall(nodes.tbody):
                    for row in body.findall(nodes.row):
                        for title, entry in list(zip(titles, row.children, strict=False))[1:]:
                            _label(title, entry)


def _label(title: str, entry: nodes.Node) -> None:
    if title and isinstance(entry, nodes.entry) and entry.astext().strip():
        label = nodes.inline("", f"{title}: ", classes=["label"])
        entry.children[0].insert(0, label)  # type: ignore[attr-defined] # the paragraph in which docutils puts the text


class BreakNames(SphinxPostTransform):
    """Allow line breaks in long names, at places that part one word from the next."""

    default_priority = 810
    formats = ("html",)

    def run(self, **kwargs: object) -> None:
        names = (nodes.literal, addnodes.desc_addname, addnodes.desc_name, addnodes.desc_sig_name)
        for text in list(self.document.findall(nodes.Text)):
            if isinstance(text.parent, names):
                if isinstance(text.parent, nodes.literal) and " " not in text:
                    text.parent["classes"].append("name")
                first, *others = _pieces(text)
                broken: list[nodes.Node] = [nodes.Text(first)]
                for piece in others:
                    broken += [nodes.raw("", "<wbr>", format="html"), nodes.Text(piece)]
                if len(broken) > 1:
                    text.parent.replace(text, broken)


def _pieces(name: str) -> list[str]:
    """The pieces of *name* between which a line may be broken."""
    marked = BETWEEN_PARTS.sub("\n", name.replace("\n", " "))
    return LONG_WORDS.sub(lambda word: BETWEEN_WORDS.sub("\n", word[0]), marked).split("\n")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_post_transform(LabelCells)
    app.add_post_transform(BreakNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
