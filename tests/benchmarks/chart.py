"""The chart of the documentation, an SVG that is readable on light and on dark pages."""

from __future__ import annotations

import typing as t
from html import escape

from .harness import Result

PANELS = (
    ("replay", "Capture and replay, as a multiple of Flask's own app context"),
    ("round trip", "submit().result(), as a multiple of the bare round trip"),
    ("thread", "Thread start and join, as a multiple of the bare thread"),
    ("request", "A request that fans out to 4 tasks, as a multiple of passing the data by hand"),
)

WIDTH, BAR, GAP, LABELS, MARGIN = 860, 16, 8, 290, 24

# The page's own colours cannot be read from inside an image: each scheme has its own card, so that the text never
# lies on a ground it was not made for.
STYLE = """
.card { fill: #ffffff; stroke: #d0d7de }
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600 }
.ours { fill: #1a7f64 }
.other { fill: #8c959f }
.base { stroke: #cf222e; stroke-dasharray: 3 3 }
@media (prefers-color-scheme: dark) {
  .card { fill: #161b22; stroke: #30363d }
  text { fill: #e6edf3 }
  .ours { fill: #3fb68b }
  .other { fill: #6e7681 }
  .base { stroke: #ff7b72 }
}
"""


def draw(results: dict[str, dict[str, Result]]) -> str:
    """The scenarios of `PANELS` that were measured, one below the other."""
    body: list[str] = []
    y = MARGIN
    for name, title in PANELS:
        if name in results:
            y = _panel(body, y, title, list(results[name].values()))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img">'
    card = f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{y - 1}" rx="8"/>'
    title = "<title>What inheritance costs, beside what people would use instead</title>"
    return "\n".join([head, title, f"<style>{STYLE}</style>", card, *body, "</svg>\n"])


def _panel(body: list[str], y: int, title: str, results: t.Sequence[Result]) -> int:
    body.append(f'<text class="title" x="{MARGIN}" y="{y + 12}">{escape(title)}</text>')
    y += 28
    longest = max(result.of_minima for result in results)
    scale = (WIDTH - LABELS - MARGIN - 60) / longest
    top = y
    for result in results:
        length = max(1.0, result.of_minima * scale)
        kind = "ours" if result.column.startswith("ours") else "other"
        body.append(f'<text x="{LABELS - 8}" y="{y + 13}" text-anchor="end">{escape(result.column)}</text>')
        body.append(f'<rect class="{kind}" x="{LABELS}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"/>')
        body.append(f'<text x="{LABELS + length + 6:.1f}" y="{y + 13}">{result.of_minima:.2f}</text>')
        y += BAR + GAP
    one = LABELS + scale
    body.append(f'<line class="base" x1="{one:.1f}" y1="{top - 4}" x2="{one:.1f}" y2="{y - 4}"/>')
    return y + MARGIN
