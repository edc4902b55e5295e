"""The snapshot of a context: data only. `capture` takes it, `replay` runs a callable in it."""

from __future__ import annotations

import contextvars
import typing as t
import weakref
from collections.abc import Mapping
from types import MappingProxyType

from flask import Flask
from flask.ctx import AppContext

from .entries import Entries, Namespaces
from .flask_context import Lent, lent_request
from .place import Place

NO_ENTRIES: Entries = {}
"""The entries of a snapshot that has none. Never changed."""
NONE_LEFT_OUT: Mapping[str, str] = MappingProxyType({})


class Snapshot:
    """What a thread or task inherits: the app, entries of ``g``, and the lent request and session.

    A snapshot is immutable. It can be replayed any number of times, by many threads at once. It refers to the parent's
    app context weakly.
    """

    __slots__ = (
        "__weakref__",
        "app",
        "closable",
        "lent",
        "namespaces",
        "not_inherited",
        "origin",
        "parent",
        "shared_g",
        "values",
        "variables",
        "warn_after",
    )

    app: Flask
    values: Entries
    """The inherited entries of ``g``, by reference, except those in `namespaces`."""
    closable: Entries
    """Those of `values` that a teardown handler could close: all but the plain immutable ones."""
    namespaces: Namespaces
    """The inherited entries of ``g`` that are a `types.SimpleNamespace`: the attributes of each."""
    not_inherited: Mapping[str, str]
    """The other entries of ``g``: name and reason."""
    shared_g: t.Any
    """With the option ``share``, the parent's ``g`` itself; else None."""
    lent: Lent | None
    """The lent request and session; None outside of a request and with ``request=False``."""
    variables: contextvars.Context | None
    """With the option ``contextvars``, a copy of the parent's other context variables; else None."""
    origin: Place | None
    """Where the thread or task was started; None if the policy does not ask for it, and for what was carried."""
    parent: weakref.ref[AppContext]
    """A weak reference to the app context that the snapshot was taken of."""
    warn_after: float | None
    """The option ``warn_after`` of the policy."""

    environ: t.ClassVar[t.Any] = None
    """The WSGI environ of a request that was carried from another process: see `CarriedSnapshot`."""

    @property
    def inherited(self) -> tuple[str, ...]:
        """The names of the entries of ``g`` that are inherited."""
        if self.shared_g is not None:
            try:
                return tuple(object.__getattribute__(self.shared_g, "__dict__").copy())
            except AttributeError:
                return ()  # Its class has __slots__.
        return (*self.values, *self.namespaces)

    def request_line(self) -> tuple[str, str] | tuple[None, None]:
        """Return method and path of the lent request; twice None if none was lent."""
        request = lent_request(self.lent)
        return (None, None) if request is None else (str(request.method), str(request.path))


class CarriedSnapshot(Snapshot):
    """A snapshot that was carried from another process. Its replay opens a request of its own, made from `environ`."""

    __slots__ = ("environ", "session")

    environ: t.Any  # type: ignore[misc]  # an attribute of each instance here, of the class above
    session: t.Any
    """The session of that request; None to have Flask open one."""

    def request_line(self) -> tuple[str, str] | tuple[None, None]:
        """Return method and path of the carried request; twice None if none was carried."""
        if self.environ is None:
            return None, None
        # WSGI has the bytes of the path as text in latin-1.
        path = self.environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace")
        return self.environ["REQUEST_METHOD"], f"/{path.lstrip('/')}"
