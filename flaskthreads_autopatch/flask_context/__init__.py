"""Flask's contexts, seen from a thread: the only place that knows Flask's private names.

Flask has two generations of contexts. They are told apart by feature, never by version number:

* `flask_2_2`: Flask 2.2 to 3.1 keep an app context and a request context in two context variables; a context lists the
  tokens of its pushes in ``_cv_tokens``; a dispatch reuses an active app context of the same app.
* `flask_3_2`: Flask 3.2 has one app context, which may have request data; it counts its pushes in ``_push_count``.

Every other module speaks of the *active* context, of what may be *lent*, of *enter* and *leave*, and of context
variables *without Flask*.
"""

from __future__ import annotations

import typing as t

from .variables import (
    FLASKS_G,
    HAS_REQUEST_CONTEXT,
    MARK,
    PARENT,
    Lent,
    active,
    active_or,
    defaults_of,
    foreign_request,
    has_served,
    in_transition,
    is_inherited,
    without_flask,
)

REUSES_APP_CONTEXT = HAS_REQUEST_CONTEXT
"""Whether a dispatch reuses an active app context of the same app (Flask < 3.2)."""

if t.TYPE_CHECKING or HAS_REQUEST_CONTEXT:
    from . import flask_2_2 as generation
else:
    from . import flask_3_2 as generation

active_request = generation.active_request
enter = generation.enter
enter_with_request = generation.enter_with_request
hide_requests = generation.hide_requests
is_ending = generation.is_ending
is_pushed = generation.is_pushed
leave = generation.leave
leave_again = generation.leave_again
lend_to = generation.lend_to
lendable = generation.lendable
lent_request = generation.lent_request
note_push_layer = generation.note_push_layer
own_request = generation.own_request
push_app_context = generation.push_app_context
push_request_context = generation.push_request_context
show_requests = generation.show_requests
take_back = generation.take_back

__all__ = [
    "FLASKS_G",
    "MARK",
    "PARENT",
    "REUSES_APP_CONTEXT",
    "Lent",
    "active",
    "active_or",
    "active_request",
    "defaults_of",
    "enter",
    "enter_with_request",
    "foreign_request",
    "has_served",
    "hide_requests",
    "in_transition",
    "is_ending",
    "is_inherited",
    "is_pushed",
    "leave",
    "leave_again",
    "lend_to",
    "lendable",
    "lent_request",
    "note_push_layer",
    "own_request",
    "push_app_context",
    "push_request_context",
    "show_requests",
    "take_back",
    "without_flask",
]
