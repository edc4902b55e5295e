"""Context variables in which neither a context of Flask's nor `suppress_inheritance` is active."""

from __future__ import annotations

import contextvars

from . import flask_context
from .suppression import suppressed


def clean_context() -> contextvars.Context:
    """Return a copy of the current context variables, without Flask's contexts and without `suppress_inheritance`."""
    context = flask_context.without_flask()
    context.run(suppressed.set, False)
    return context
