"""The HTML page of an audit: one file that needs nothing else, and that fetches nothing."""

from __future__ import annotations

import base64
import hashlib
import re
import typing as t
from pathlib import Path

from .compared import difference, pairs
from .record import Record
from .report import Audit
from .table import LEGEND, place_of
from .verdicts import NAMES, seconds, worst_first


class Column(t.NamedTuple):
    """A column of the page's table."""

    title: str
    name: str
    """Its class in CSS."""
    is_number: bool
    help: str


COLUMNS = (
    Column(
        "Verdict", "verdict", True, "what inheritance changes, and what to do about it; sorted by how much it matters"
    ),
    Column("Place", "place", False, "the line of the application's code that starts it"),
    Column("What runs", "runs", False, "what runs in the thread or task"),
    Column("Context", "context", False, "the app and the endpoint of the request in which it was started"),
    Column("Starts", "starts", True, "how often it ran"),
    Column("At once", "at-once", True, "how many ran at the same time, at most, in one process"),
    Column("Failed", "failed", True, "runs that raised: Working outside of ... context"),
    Column("Own context", "helped", True, "runs that pushed a context of their own"),
    Column("Outlived by", "outlived", True, "the longest time that a run went on after its parent's context had ended"),
)


def page(audit: Audit, earlier: Audit | None) -> str:
    """Return the page of *audit*, with what has changed since *earlier* if that is given."""
    # Flask has brought jinja2, but an audit without a page does without it.
    from jinja2 import Environment, StrictUndefined

    audit, earlier = audit.printable(), earlier and earlier.printable()
    found = [] if earlier is None else pairs(earlier, audit)
    judged = worst_first(audit.records, audit.is_on)
    counts = {name: sum(verdict.name == name for _, verdict in judged) for name in NAMES}
    style, script = _text("page.css"), _text("page.js")
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(_text("page.html"))
    return template.render(
        audit=audit,
        earlier=earlier,
        judged=judged,
        counts={name: count for name, count in counts.items() if count},
        changes={pair.now.key: difference(pair) for pair in found if pair.now},
        gone=[pair.earlier for pair in found if not pair.now],
        columns=COLUMNS,
        legend=LEGEND,
        place_of=place_of,
        breakable=_breakable,
        outlived=_outlived,
        style=style,
        script=script,
        policy=f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'",
    )


def _outlived(record: Record) -> str:
    return seconds(record.longest) + ("+" if record.still_running else "") if record.outlived else ""


def _breakable(text: str) -> str:
    """Return a name as HTML, which the browser may break after a dot, a colon or a slash, and nowhere else."""
    from markupsafe import Markup, escape

    return Markup(re.sub("([.:/])", r"\1<wbr>", str(escape(text))))


def _text(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8").strip()


def _hash(text: str) -> str:
    """Return *text* as a browser is told to allow it, and no other text, in the page."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
