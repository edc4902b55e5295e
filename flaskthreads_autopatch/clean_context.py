"""Context variables in which no context of Flask's is active, and inheritance is not suppressed."""

from __future__ import annotations

import contextvars

from . import flask_context
from .suppression import suppressed


def clean_context() -> contextvars.Context:
    """Return a copy of the current context variables, with no context of Flask's active, and nothing suppressed."""
    context = flask_context.without_flask()
    context.run(suppressed.set, False)
    return context
