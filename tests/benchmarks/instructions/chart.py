"""The chart of the documentation, an SVG that is readable on light and on dark pages."""

from __future__ import annotations

from html import escape

PANELS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    (
        "A request that starts no thread",
        "request",
        (("without the library", "request"), ("with it", "request, on")),
    ),
    (
        "A thread in a request: start and join",
        "thread in request",
        (
            ("bare, which inherits nothing", "thread in request"),
            ("this library", "thread in request, on"),
            ("written by hand", "thread by hand"),
        ),
    ),
    (
        "A pool task in a request: submit and result",
        "submit in request",
        (
            ("bare, which inherits nothing", "submit in request"),
            ("this library", "submit in request, on"),
            ("copy_current_request_context", "submit, copy_current_request_context"),
            ("written by hand", "submit by hand"),
            ("Flask-Executor", "submit, Flask-Executor"),
        ),
    ),
    (
        "Where no context is active",
        "thread",
        (("a bare thread", "thread"), ("a thread with the library", "thread, on")),
    ),
)
"""Title, the case that is 1, and the cases that are shown, each with its label."""
OURS = ("with it", "this library", "a thread with the library")

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


def draw(instructions: dict[str, float]) -> str:
    """The panels whose cases were counted, one below the other."""
    body: list[str] = []
    y = MARGIN
    for title, base, bars in PANELS:
        if all(case in instructions for case in (base, *(case for _, case in bars))):
            y = _panel(body, y, title, [(label, instructions[case] / instructions[base]) for label, case in bars])
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img">'
    card = f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{y - 1}" rx="8"/>'
    title = "<title>Instructions, with this library and with what people would use instead</title>"
    return "\n".join([head, title, f"<style>{STYLE}</style>", card, *body, "</svg>\n"])


def _panel(body: list[str], y: int, title: str, bars: list[tuple[str, float]]) -> int:
    body.append(f'<text class="title" x="{MARGIN}" y="{y + 12}">{escape(title)}</text>')
    y += 28
    scale = (WIDTH - LABELS - MARGIN - 60) / max(ratio for _, ratio in bars)
    top = y
    for label, ratio in bars:
        length = max(1.0, ratio * scale)
        kind = "ours" if label in OURS else "other"
        body.append(f'<text x="{LABELS - 8}" y="{y + 13}" text-anchor="end">{escape(label)}</text>')
        body.append(f'<rect class="{kind}" x="{LABELS}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"/>')
        body.append(f'<text x="{LABELS + length + 6:.1f}" y="{y + 13}">{ratio:.2f}</text>')
        y += BAR + GAP
    one = LABELS + scale
    body.append(f'<line class="base" x1="{one:.1f}" y1="{top - 4}" x2="{one:.1f}" y2="{y - 4}"/>')
    return y + MARGIN
