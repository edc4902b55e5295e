"""Calling what an app has registered: teardown handlers, and receivers of signals.

In a teardown each of them runs, whatever another one raises (H9). An error is logged on ``app.logger`` and never
becomes the outcome of the task (H10).
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
import threading
import typing as t
from collections.abc import Mapping

from flask import Flask
from flask.signals import appcontext_tearing_down

from ..log import log
from ..names import name_of_callable

# blinker runs async receivers through this keyword since 1.6; an earlier one would hand it to the receivers.
_takes_async_wrapper = "_async_wrapper" in inspect.signature(appcontext_tearing_down.send).parameters

# Without blinker, which Flask 2.2 does not require, a signal has no receivers at all.
tearing_down_receivers: Mapping[t.Any, t.Any] = getattr(appcontext_tearing_down, "receivers", {})


def send(signal: t.Any, app: Flask, **values: t.Any) -> None:
    """Send *signal* as Flask sends its own. Raises what a receiver raises."""
    if _takes_async_wrapper:
        values["_async_wrapper"] = app.ensure_sync
    signal.send(app, **values)


_NAME = "do_teardown_appcontext"
_bottom = inspect.unwrap(vars(Flask)[_NAME])
FLASKS_TEARDOWN = _bottom if _bottom.__module__ == "flask.app" else None
"""Flask's own ``do_teardown_appcontext``; None if that was replaced before this module was imported."""


def has_teardown_of_its_own(app: Flask) -> bool:
    """Return whether the user has replaced ``do_teardown_appcontext()``: on *app*, in its class, or on Flask."""
    if _NAME in vars(app):
        return True
    owner = next(base for base in type(app).__mro__ if _NAME in vars(base))
    # An agent's layer around Flask's own does not count: through it, Flask's own would be called, see `steps_of`.
    return owner is not Flask or inspect.unwrap(vars(Flask)[_NAME]) is not FLASKS_TEARDOWN


Steps = t.Iterator[t.Callable[[BaseException | None], None]]
"""The steps of a teardown that have not begun. An iterator, so that no step is taken twice."""


def tear_down(steps: Steps, app: Flask, exc: BaseException | None, fn: object) -> BaseException | None:
    """Take all *steps* of a teardown, whatever one of them raises, for the context in which *fn* ran.

    Returns an exception that must not be swallowed, or None. If this raises, an asynchronous exception has struck
    between two instructions of this function; called again, it takes the steps that are left.
    """
    interrupt: BaseException | None = None
    while True:
        try:
            for step in steps:
                try:
                    step(exc)
                except Exception:
                    log_error(app, fn)
            return interrupt
        except BaseException as error:
            # As gevent's Timeout, which may strike in a handler that waits, and in a logging handler: it goes on after
            # the other steps have been taken.
            interrupt = error


def steps_of(app: Flask, is_replaced: bool) -> Steps:
    """Return the steps that ``do_teardown_appcontext(exc)`` of Flask before 3.2 takes.

    *is_replaced*: whether the app's method is another than Flask's own, which may be a layer around that.
    """
    if is_replaced and has_teardown_of_its_own(app):
        # The user's own is called as it stands.
        return iter([app.do_teardown_appcontext])
    # Flask's own stops at the first handler that raises, and leaks what the later ones would free (H9).
    steps = [functools.partial(_call_handler, app, func) for func in reversed(app.teardown_appcontext_funcs)]
    return iter([*steps, functools.partial(_send_tearing_down, app)])


def _call_handler(app: Flask, func: t.Any, exc: BaseException | None) -> None:
    app.ensure_sync(func)(exc)


def _send_tearing_down(app: Flask, exc: BaseException | None) -> None:
    if tearing_down_receivers:
        send(appcontext_tearing_down, app, exc=exc)


def guarded(app: Flask, fn: object, step: t.Callable[..., object], *args: t.Any) -> None:
    """Call one step of a teardown. What it raises must not keep the next one from running, nor be *fn*'s outcome."""
    try:
        step(*args)
    except Exception:
        log_error(app, fn)


def pop_guarded(ctx: t.Any, exc: BaseException | None, fn: object) -> BaseException | None:
    """Pop *ctx*, which *fn* has pushed and never popped. *exc*: the exception that *fn* raised, or None.

    An error in the teardown of *ctx* is logged. An exception that is no `Exception`, such as `SystemExit` or gevent's
    ``Timeout``, is returned.
    """
    try:
        ctx.pop(exc)
    except Exception:
        log_error(ctx.app, fn)
    except BaseException as interrupt:
        return interrupt
    return None


_TORN_DOWN = "_flaskthreads_autopatch_torn_down"
"""An attribute of an app context: the token of the push that was found to be torn down."""


def is_torn_down(ctx: t.Any, token: object) -> bool:
    """Return whether *ctx*, which was pushed with *token*, is being torn down by the code that calls this.

    Flask keeps no note of a teardown that is running. Its frame is recognised by the name of the method, because agents
    replace the code. The result is noted on the context: an ``async def`` handler runs in a thread of its own, where
    that frame is not found. (That thread is started through a patch point, which asks first.)
    """
    if token is not None and ctx.__dict__.get(_TORN_DOWN) is token:
        return True
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "do_teardown_appcontext":
            setattr(ctx, _TORN_DOWN, token)
            return True
        frame = t.cast(t.Any, frame.f_back)
    return False


def log_error(app: Flask, fn: object) -> None:
    """Log the exception that is being handled as one in the teardown of *fn*'s context."""
    log(
        logging.ERROR,
        "Error in the teardown of the app context inherited by %s in thread %r",
        name_of_callable(fn),
        threading.current_thread().name,
        app=app,
        exc_info=True,
    )
