"""Our wrapt layers on the patch points: apply and remove them, and leave every other layer alone."""

from __future__ import annotations

import functools
import importlib.util
import sys
import typing as t
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from types import MethodType

import wrapt

from .lookup import gated_at_lookup
from .origins import origins


class PatchPoint(t.NamedTuple):
    """One attribute that is wrapped by a layer of ours."""

    module: str
    attribute: str
    wrapper: Callable[..., t.Any]
    gate: Callable[[], object] = functools.partial(bool, 1)
    """Called by wrapt before each call. If the result is false, the wrapper is not called. It should run no Python:
    it is most of the price of a call for which there is nothing to do."""
    note: Callable[[object], object] | None = None
    """Called with the layer when it has been applied."""
    gated_at_lookup: bool = False
    """Whether the gate is asked when the method is read, see `gated_at_lookup`."""

    @property
    def name(self) -> str:
        return f"{self.module}.{self.attribute}"


class Hook(t.Protocol):
    """A hook of another package, which takes the place of a patch point."""

    @property
    def module(self) -> str:
        """The module after whose import it is added."""

    @property
    def name(self) -> str:
        """How `describe` calls it."""

    def add(self, argument: t.Any) -> None:
        """Have the other package call us. Adding twice is adding once."""

    def remove(self) -> None:
        """Undo `add`. Nothing happens if it was not called."""

    def describe(self) -> list[str]:
        """Return a list with the module that is called; an empty list if no module is."""


class _Layer(t.NamedTuple):
    """One of our layers: the wrapper that wrapt made, and its gate."""

    handle: wrapt.FunctionWrapper[..., t.Any]
    gate: _Gate


class _Gate(functools.partial[object]):
    """The gate of one layer, which can be replaced. A partial, because wrapt then calls it without a Python frame."""

    def become(self, gate: Callable[[], object]) -> None:
        self.__setstate__((gate, (), {}, None))  # type: ignore[attr-defined]  # as for copy(); typeshed leaves it out


_CLOSED: Callable[[], object] = bool
"""The gate of a layer that is inert: bool() is False."""


class Layers:
    """Our layers on *points*, and on each of *late_points* once its module is imported, when *hooks* are added too.

    Each wrapper is called with *argument* before the arguments that wrapt passes, and each hook is added with it.
    *lock*, a reentrant lock, is held by the caller of `apply` and `revert`, and is taken here when the module of a late
    point is imported.
    """

    def __init__(
        self,
        points: tuple[PatchPoint, ...],
        late_points: tuple[PatchPoint, ...],
        argument: object,
        lock: AbstractContextManager[object],
        hooks: tuple[Hook, ...] = (),
    ) -> None:
        self.points = points
        self.late_points = late_points
        self.hooks = hooks
        self._late: tuple[PatchPoint | Hook, ...] = (*late_points, *hooks)
        self._argument = argument
        self.lock = lock
        self.applied = False
        self._layers: dict[PatchPoint, _Layer] = {}
        # Layers that cannot be removed, because a layer that is not wrapt's wraps them. Their gates are closed.
        self._buried: list[tuple[PatchPoint, _Layer]] = []
        self._watched: set[str] = set()

    def watch_imports(self) -> None:
        """Have `apply` and the import of each late point's module find each other. Call it without the lock.

        An import that another thread has begun ends in `_on_import`, which waits for the lock. A thread that waited for
        that import while it holds the lock would never get on.
        """
        for point in self._late:
            module = sys.modules.get(point.module)
            if module is not None:
                if getattr(module.__spec__, "_initializing", False):
                    with suppress(ImportError):
                        importlib.import_module(point.module)
            elif point.name not in self._watched and importlib.util.find_spec(point.module.partition(".")[0]):
                self._watched.add(point.name)
                on_import = functools.partial(self._on_import, point)
                wrapt.register_post_import_hook(on_import, point.module)

    def apply(self) -> None:
        """Wrap each patch point that has no layer of ours. If that fails, remove the layers of this call."""
        before, self.applied = self.applied, True
        try:
            for point in self.points:
                self._wrap(point)
            for late in self._late:
                if sys.modules.get(late.module) is not None:
                    self._add(late)
        except BaseException:
            if not before:
                self.revert()
            raise

    def revert(self) -> None:
        """Remove our layers, and only ours. One that cannot be removed yet does nothing until the next attempt."""
        self.applied = False
        for hook in self.hooks:
            hook.remove()
        self._buried += self._layers.items()
        self._layers = {}
        for _, layer in self._buried:
            layer.gate.become(_CLOSED)
        self._buried = [buried for buried in self._buried if not _take_out(*buried)]

    def describe(self) -> dict[str, list[str]]:
        """Return, for each patch point, the module that each of its layers comes from, the outermost first."""
        points = [point for point in self.points + self.late_points if point.module in sys.modules]
        hooks = {hook.name: hook.describe() for hook in self.hooks if hook.module in sys.modules}
        return {point.name: origins(_chain(point)) for point in points} | hooks

    def _add(self, point: PatchPoint | Hook) -> None:
        if isinstance(point, PatchPoint):
            self._wrap(point)
        else:
            point.add(self._argument)

    def _wrap(self, point: PatchPoint) -> None:
        if (layer := self._layers.get(point)) is not None:
            if _regain(point, layer.handle):
                return
            # Other code has removed our layer, or hides it below its own. Deactivate it before adding another: at most
            # one of our layers is active.
            layer.gate.become(_CLOSED)
            self._buried.append((point, self._layers.pop(point)))
        for buried in self._buried.copy():
            if _regain(point, buried[1].handle):
                self._buried.remove(buried)
                self._layers[point] = buried[1]
                buried[1].gate.become(point.gate)
                return
        gate = _Gate(point.gate)
        # Calling a method takes 15 ns less than calling a functools.partial, a quarter of a call that passes through.
        wrapper = MethodType(point.wrapper, self._argument)
        kind = gated_at_lookup(gate) if point.gated_at_lookup else wrapt.FunctionWrapper
        handle = wrapt.wrap_object(*_place(point), kind, (wrapper, gate))
        self._layers[point] = _Layer(handle, gate)
        if point.note is not None:
            point.note(handle)

    def _on_import(self, point: PatchPoint | Hook, module: object) -> None:
        with self.lock:
            if self.applied:
                self._add(point)


def _take_out(point: PatchPoint, layer: _Layer) -> bool:
    """Remove *layer* from *point*. Return whether that was possible."""
    _regain(point, layer.handle)
    try:
        wrapt.unwrap_object(*_place(point), layer.handle)
    except (wrapt.WrapperNotFoundError, wrapt.WrapperNotOutermostError):
        return False
    return True


def _place(point: PatchPoint) -> tuple[type, str]:
    """Return the class, or module, that *point* names, and the attribute."""
    found, attribute, _ = wrapt.resolve_path(point.module, point.attribute)
    # gevent replaces Thread with a subclass of its own, which precedes Timer in the MRO of gevent's Timer. A wrapper in
    # that subclass would hide Timer.__init__.
    owner = t.cast(type, found)
    return next((cls for cls in getattr(owner, "__mro__", ()) if cls.__module__ == point.module), owner), attribute


def _chain(point: PatchPoint) -> list[t.Any]:
    return list(wrapt.wrapper_chain(wrapt.resolve_path(*_place(point))[2]))


def _regain(point: PatchPoint, handle: object) -> bool:
    """Return whether our layer, *handle*, is on *point*. Where only its bound form is, replace that by *handle*.

    Code that reads a wrapped method from its class and later assigns it back stores wrapt's *bound* wrapper, as
    OpenTelemetry's ``uninstrument()`` does. wrapt cannot remove that one.
    """
    above, reachable = None, True
    for entry in _chain(point):
        if entry is handle:
            return True
        is_bound = issubclass(type(entry), wrapt.BoundFunctionWrapper)
        if is_bound and entry._self_parent is handle:
            if above is None:
                setattr(*_place(point), handle)
            elif reachable:
                above.__wrapped__ = handle
            return True
        # A bound wrapper or a function wraps a copy of its own: a change below it would not change the patch point.
        reachable = reachable and not is_bound and issubclass(type(entry), wrapt.BaseObjectProxy)
        above = entry
    return False
