"""Replay: run a callable in an app context of its own that is filled from a snapshot. The heart of the library.

`replay` does it around one callable, in the thread that calls it:

1. A new app context of the app is pushed. Receivers of ``appcontext_pushed`` run.
2. The child's own ``g`` is filled, and the request and session are lent.
3. The callable runs.
4. The entries that the parent opened are hidden from the child's ``g``, and the app context is torn down and popped:
   what the child opened is closed, in the child, and nothing else.

The parent's context object is neither kept nor touched. Steps 1 and 2 are `begin`, step 4 is `end`, for code that runs
between them without being one call: a ``with`` block, or a generator.
"""

from __future__ import annotations

import contextvars
import typing as t
from collections.abc import Callable
from threading import get_ident
from time import monotonic

from flask.ctx import AppContext

from . import entries, flask_context
from .clean_context import clean_context
from .flask_context import FLASKS_G, foreign_request
from .log import deferred, log_deferred
from .observation import Observation, begin_run, end_run
from .snapshot import Snapshot
from .suppression import R
from .visibility import signals
from .visibility.overdue import overdue
from .visibility.registry import Entry, Kind, replays
from .visibility.signals import inherited_receivers, released_receivers

Replaying = tuple[AppContext, t.Any, t.Any, object, t.Any, entries.Entries, entries.Namespaces, tuple[t.Any, ...]]
"""A replay that has begun: its app context, the function and the state that leave it, the callable that describes it,
the child's own ``g``, the entries and namespaces to hide, and the replay's entry in the registry."""


def replay(
    snapshot: Snapshot,
    fn: Callable[..., R],
    args: tuple[t.Any, ...],
    kwargs: dict[str, t.Any],
    kind: Kind = "task",
    shown: object = None,
    in_own_variables: bool = False,
) -> R:
    """Return or raise what ``fn(*args, **kwargs)`` does, called in a new app context filled from *snapshot*.

    What a teardown handler or a signal receiver raises at the end is logged on ``app.logger``. What a receiver of
    ``appcontext_pushed`` raises is raised here before *fn* is called, as it is in ``with app.app_context()``.

    *kind* and *shown* (by default *fn*) describe this replay in `running`. *in_own_variables* is true in the recursive
    call, which runs in context variables of its own.
    """
    replaying = error = None
    try:
        if type(snapshot) is Observation:
            return _observed(snapshot, fn, args, kwargs, kind, shown)
        # A request context that is active here belongs to other code, and must not be seen in the new app context.
        if not in_own_variables and (snapshot.variables is not None or foreign_request() is not None):
            in_context: Callable[..., R] = own_variables(snapshot).run
            return in_context(replay, snapshot, fn, args, kwargs, kind, shown, True)
        replaying = begin(snapshot, fn if shown is None else shown, kind)
        try:
            return fn(*args, **kwargs)
        except BaseException as exc:
            error = exc
            raise
        finally:
            try:
                end(replaying, error)
            except BaseException:
                end_again(replaying, error)
                raise
    finally:
        # An exception that is kept, as a future keeps it, keeps this frame and its variables through its traceback.
        del snapshot, fn, args, kwargs, shown, replaying, error


def _observed(
    observation: Observation,
    fn: Callable[..., R],
    args: tuple[t.Any, ...],
    kwargs: dict[str, t.Any],
    kind: Kind,
    shown: object,
) -> R:
    """Do what `replay` does with the snapshot of *observation*, if it has one, and count this run."""
    error = None
    run = begin_run(observation, fn if shown is None else shown, kind)
    try:
        if observation.replayed is None:
            return fn(*args, **kwargs)
        return replay(observation.replayed, fn, args, kwargs, kind, shown)
    except BaseException as exc:
        error = exc
        raise
    finally:
        end_run(run, error)
        del observation, fn, args, kwargs, shown, run, error


def own_variables(snapshot: Snapshot) -> contextvars.Context:
    """Return new context variables for a replay of *snapshot*, in which no context of Flask's is active."""
    # A copy, because a contextvars.Context can be entered once at a time.
    return clean_context() if snapshot.variables is None else snapshot.variables.copy()


def begin(snapshot: Snapshot, shown: object, kind: Kind = "task", into: AppContext | None = None) -> Replaying:
    """Push a new app context and fill it from *snapshot*. Pass the result to `end`, in the same thread.

    With *into*, an active app context of other code, that one is filled, and `end` leaves its teardown to that code.
    """
    if deferred:
        log_deferred()
    leave = flask_context.leave
    # This is made first, because an asynchronous exception may be raised after a call of a function that is written in
    # C. Once the context is entered, there is no such call outside of the `try` (H41).
    entry = get_ident(), monotonic(), snapshot, shown, kind
    if into is not None:
        carried, ctx, leave = t.cast(t.Any, snapshot), into, flask_context.take_back
        state = flask_context.lend_to(ctx, carried.environ, carried.session, shown)
    elif snapshot.environ is None:
        ctx, state = flask_context.enter(snapshot.app, snapshot.lent, shown)
    else:
        carried = t.cast(t.Any, snapshot)
        ctx, state = flask_context.enter_with_request(carried.app, carried.environ, carried.session, shown)
    own_g, closable, namespaces = ctx.g, snapshot.closable, snapshot.namespaces
    try:
        replays[ctx] = entry
        if snapshot.shared_g is not None:
            ctx.g = snapshot.shared_g
        elif not snapshot.values and not namespaces:
            pass
        elif (target := own_g.__dict__) or namespaces:
            # An entry that a receiver of appcontext_pushed has put there wins, and belongs to the child.
            own = entries.without_defaults(target, flask_context.defaults_of(ctx))
            closable, namespaces = entries.without(own, closable), entries.without(own, namespaces)
            entries.fill(target, entries.without(own, snapshot.values), namespaces)
        else:
            # The child's g has no entry yet, as nearly always: there is nothing to compare.
            target.update(snapshot.values)
        if inherited_receivers:
            signals.begin(ctx)
    except BaseException as error:
        replays[ctx] = entry  # This may have failed for want of memory.
        end((ctx, leave, state, shown, own_g, closable, namespaces, entry), error)
        raise
    return ctx, leave, state, shown, own_g, closable, namespaces, entry


def end(replaying: Replaying, error: BaseException | None) -> None:
    """Tear the app context of *replaying* down and pop it. *error*: the exception that the code inside raised."""
    ctx, leave, state, shown, own_g, closable, namespaces, entry = replaying
    try:
        # With the option share, this was the parent's g. A teardown handler must not close what is on that.
        ctx.g = own_g
        try:
            if closable or namespaces:
                entries.hide(own_g.__dict__, closable, namespaces)
                if type(own_g) is not FLASKS_G:
                    _put_back(ctx, own_g, closable, namespaces)
        except BaseException:
            # An asynchronous exception has struck (H41). A second one is not expected.
            entries.hide(own_g.__dict__, closable, namespaces)
            _put_back(ctx, own_g, closable, namespaces)
            raise
        finally:
            try:
                leave(ctx, state, error, shown)
            except BaseException:
                if leave is flask_context.leave:
                    flask_context.leave_again(ctx, state, error, shown)
                raise
    finally:
        # Unregister first, then look at `overdue`. The watcher works in the opposite order (it adds to `overdue`, then
        # looks at the registry), so that exactly one of the two reports the end.
        del replays[ctx]
        if released_receivers or overdue:
            signals.end(ctx, Entry(*entry), error)
        del replaying, error, ctx, state, shown, own_g, closable, namespaces, entry  # See `replay`.


def end_again(replaying: Replaying, error: BaseException | None) -> None:
    """Call `end` once more where it has raised and done nothing: an asynchronous exception struck at its first step."""
    if replaying[0] in replays:  # (H41)
        end(replaying, error)


def _put_back(ctx: AppContext, own_g: t.Any, closable: entries.Entries, namespaces: entries.Namespaces) -> None:
    # The constructor of an app's own class of g may have set an entry that is hidden now. A handler may count on that
    # default.
    entries.put_back((*closable, *namespaces), flask_context.defaults_of(ctx), own_g.__dict__)


def is_inherited() -> bool:
    """Return whether the app context that is active here is an inherited one; False where none is active."""
    ctx = flask_context.active()
    return ctx is not None and flask_context.is_inherited(ctx)
