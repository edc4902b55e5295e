"""Capture and replay: the heart.

`capture` is called in the parent, at ``start()`` or ``submit()``, with the app context that is active there. It takes a
`Snapshot`: the app, the inherited entries of ``g``, the lent request and session. A snapshot is immutable and can be
replayed any number of times, from many threads at once.

`Snapshot.replay` replays it around one callable, in the thread that calls it:

1. a new app context of the app is pushed; receivers of ``appcontext_pushed`` run;
2. the child's own ``g`` is filled, the request and session are lent;
3. the callable runs;
4. what the parent opened is hidden from the child's ``g``, the request is taken back, and the app context is torn down
   and popped: what the child opened is closed, in the child, and nothing else.

The parent's context object is neither kept nor touched.
"""

from __future__ import annotations

import contextvars
import functools
import logging
import typing as t
import weakref
from collections.abc import Callable, Mapping
from threading import get_ident
from time import monotonic
from types import MappingProxyType, SimpleNamespace

from flask import Flask
from flask.ctx import AppContext

from . import flask_context, parents, signals
from .catalogue import PLAIN_TYPES, THREAD_BOUND_NAMES
from .clean_context import clean_context
from .flask_context import MARK, foreign_request
from .log import log, logger
from .names import shown
from .policy import Policy
from .register import Kind, replays
from .signals import inherited_receivers, released_receivers
from .suppression import R
from .watch import overdue, watch


def capture(ctx: AppContext, policy: Policy, *, contextvars: bool = True) -> Snapshot | None:
    """Take a snapshot of *ctx*, the active app context, as *policy* says. ``contextvars=False`` overrides its option.

    None while *ctx* is an inherited context on its way in or out: a thread that a teardown handler starts would run
    the same handler at its own end, and so on for ever.
    """
    if getattr(ctx, MARK, None) is False:
        return None
    # Filled here and not in an __init__: 60 ns less.
    snapshot = Snapshot()
    snapshot.app = ctx.app
    snapshot.stayed_home = _NOTHING
    snapshot._shared_g = snapshot._entries = None
    if policy.share:
        snapshot._shared_g = ctx.g
    else:
        try:
            source = ctx.g.__dict__
        except AttributeError:
            source = _EMPTY
            _say_no_dict(f"{type(ctx.g).__module__}.{type(ctx.g).__qualname__}")
        if source:
            snapshot._entries, snapshot.stayed_home = _take(source.copy(), policy)
    if policy.preload:
        _read_body(flask_context.active_request(ctx))
    snapshot.lent = flask_context.lendable(ctx) if policy.request else None
    snapshot._context = clean_context() if contextvars and policy.contextvars else None
    snapshot.warn_after = policy.warn_after
    if policy.warn_after is None and not released_receivers:
        snapshot.parent = weakref.ref(ctx)
        return snapshot
    snapshot.parent = parents.watched(ctx)
    if policy.warn_after is not None:
        watch(snapshot)
    return snapshot


_NOTHING: Mapping[str, str] = MappingProxyType({})


class Snapshot:
    """What a thread inherits from the app context in which it was started. Made by `capture`."""

    __slots__ = (
        "__weakref__",
        "_context",
        "_entries",
        "_shared_g",
        "app",
        "lent",
        "parent",
        "stayed_home",
        "warn_after",
    )

    app: Flask
    lent: flask_context.Lent | None
    stayed_home: Mapping[str, str]
    """The entries of ``g`` that are not inherited: name and reason."""
    parent: weakref.ref[AppContext]
    warn_after: float | None
    _entries: _Entries | None
    """Those that are."""
    _shared_g: t.Any
    """With the option ``share``, the parent's ``g``; else None."""
    _context: contextvars.Context | None
    """With the option ``contextvars``, the others; else None."""

    @property
    def inherited(self) -> tuple[str, ...]:
        """The names of the entries of ``g`` that are inherited."""
        if self._shared_g is not None:
            return tuple(getattr(self._shared_g, "__dict__", _EMPTY).copy())
        return () if self._entries is None else (*self._entries[0], *self._entries[2])

    def replay(
        self,
        fn: Callable[..., R],
        args: tuple[t.Any, ...],
        kwargs: dict[str, t.Any],
        kind: Kind = "task",
        shown: object = None,
        bare: bool = False,
    ) -> R:
        """Return or raise what ``fn(*args, **kwargs)`` does, called in a new app context filled from this snapshot.

        What a teardown handler or a signal receiver raises at the end is logged on ``app.logger``; what a receiver of
        ``appcontext_pushed`` raises is raised here before *fn* is called, as it is in ``with app.app_context()``.

        *kind*, and *shown* in the place of *fn* unless it is None, stand in the register of the replays going on.
        *bare*: the context variables here are made for this replay.
        """
        ctx: t.Any = None
        token = error = own_g = entry = None
        entries = self._entries
        try:
            if not bare and (self._context is not None or foreign_request() is not None):
                return self._own_context().run(self.replay, fn, args, kwargs, kind, shown, True)
            ctx, token = flask_context.enter(self.app, self.lent, fn)
            own_g = ctx.g
            entry = replays[ctx] = get_ident(), monotonic(), self, fn if shown is None else shown, kind
            try:
                if self._shared_g is not None:
                    ctx.g = self._shared_g
                elif entries is not None:
                    target = own_g.__dict__
                    if target or entries[2]:
                        entries = _fill(target, entries)
                    else:
                        target.update(entries[0])
                if inherited_receivers:
                    signals.begin(ctx)
                return fn(*args, **kwargs)
            except BaseException as exc:
                error = exc
                raise
            finally:
                ctx.g = own_g
                if entries is not None and (entries[1] or entries[2]):
                    _hide(own_g.__dict__, entries)
                try:
                    flask_context.leave(ctx, token, error, fn)
                finally:
                    # In this order: who finds it in the register no more, after it has noted it as overdue, says so.
                    del replays[ctx]
                    if released_receivers or overdue:
                        signals.end(ctx, entry, error)
        finally:
            # The traceback of an exception that is kept, as a future keeps it, keeps this frame and its variables.
            del self, fn, args, kwargs, shown, ctx, token, error, own_g, entry, entries

    def _own_context(self) -> contextvars.Context:
        # A copy: a Context can be entered once at a time.
        return clean_context() if self._context is None else self._context.copy()


_Entries = tuple[dict[str, t.Any], dict[str, t.Any], dict[str, t.Any]]
"""Entries of ``g``, or attributes of a namespace on it, by reference, in three parts: all values but namespaces; those
of them that a teardown handler could close, which is all but the plain immutable ones; and the namespaces, each as such
a triple. (A named tuple takes 200 ns more to make.)"""


def _take(values: dict[str, t.Any], policy: Policy) -> tuple[_Entries, Mapping[str, str]]:
    """What is inherited of the entries of ``g``, and why the rest is not. Takes the rest out of *values*."""
    home: dict[str, str] = {}
    for name in THREAD_BOUND_NAMES:
        if name in values:
            home[name] = THREAD_BOUND_NAMES[name]
    openable: dict[str, t.Any] = {}
    namespaces: dict[str, _Entries] = {}
    by_type = not policy.exclude
    for name, value in values.items():
        cls = type(value)
        if by_type and cls in PLAIN_TYPES:
            continue
        if reason := policy.why_home(name, cls):
            home[name] = reason
        elif cls is SimpleNamespace:
            # Extensions keep their state on g in one of these, and change it: each child has its own (H8).
            namespaces[name] = _take_attributes(vars(value), policy)
        elif cls not in PLAIN_TYPES:
            openable[name] = value
    for name in namespaces:
        del values[name]
    for name, reason in home.items():
        cls = type(values.pop(name))
        if logger.isEnabledFor(logging.DEBUG):
            _say_once(name, f"{cls.__module__}.{cls.__qualname__}", reason)
    return (values, openable, namespaces), home


_EMPTY: dict[str, t.Any] = {}


def _fill(target: dict[str, t.Any], entries: _Entries) -> _Entries:
    """Put into *target* what is not there yet, and return it."""
    if target:
        without = [{k: v for k, v in part.items() if k not in target} for part in entries]
        entries = (without[0], without[1], without[2])
    values, _, namespaces = entries
    target.update(values)
    if namespaces:
        for name, attributes in namespaces.items():
            target[name] = namespace = SimpleNamespace()
            vars(namespace).update(attributes[0])
    return entries


def _hide(target: dict[str, t.Any], entries: _Entries) -> None:
    """Take out of *target* what a teardown handler could close and is still the identical object."""
    _, openable, namespaces = entries
    for name, value in openable.items():
        if target.get(name) is value:
            target.pop(name, None)  # a thread of the task's may be at it too
    if namespaces:
        for name, attributes in namespaces.items():
            if type(namespace := target.get(name)) is SimpleNamespace:
                _hide(vars(namespace), attributes)


def _take_attributes(source: dict[str, t.Any], policy: Policy) -> _Entries:
    values = {k: v for k, v in source.copy().items() if not policy.why_thread_bound(type(v))}
    return values, {k: v for k, v in values.items() if type(v) not in PLAIN_TYPES}, _EMPTY


_STAYED = "g.%s stayed home because it is a %s: %s. In a thread it is an AttributeError until it sets its own."


@functools.lru_cache(maxsize=1024)
def _say_once(name: str, cls: str, reason: str) -> None:
    log(logging.DEBUG, _STAYED, name, cls, reason)


@functools.lru_cache(maxsize=1024)
def _say_no_dict(cls: str) -> None:
    log(
        logging.WARNING,
        "The entries of g are not inherited: app_ctx_globals_class is %s, whose instances have no __dict__. The app"
        " and the request are. Take __slots__ out of the class, or set share=True.",
        cls,
    )


def _read_body(request: t.Any) -> None:
    if request is None:
        return
    try:
        request.get_data(parse_form_data=True)
    except Exception:
        # The request's repr has method and URL as the client has sent them.
        message = "preload: reading the body of %s failed; the thread starts without it."
        log(logging.WARNING, message, shown(request), exc_info=True)


def is_inherited() -> bool:
    """Whether the app context that is active here is an inherited one; False where none is active."""
    ctx = flask_context.active()
    return ctx is not None and flask_context.is_inherited(ctx)
