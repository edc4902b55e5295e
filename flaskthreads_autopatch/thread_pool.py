"""The wrappers of `multiprocessing.pool.ThreadPool`. What they bind to a snapshot is called once per item."""

from __future__ import annotations

import typing as t

from .binding import BoundCallable, bind, bind_with_ends, has_raised, let_go
from .flask_context import active
from .layers import PatchPoint
from .patches import Args, Kwargs, PolicyFor, Wrapped, snapshot_for


def _pool_call(policy_for: PolicyFor, wrapped: Wrapped, pool: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    if active() is None:
        return wrapped(*args, **kwargs)
    args, kwargs, _ = _bind_func(policy_for, *_func_first(args, kwargs))
    return wrapped(*args, **kwargs)


def _pool_map(policy_for: PolicyFor, wrapped: Wrapped, pool: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    if active() is None:
        return wrapped(*args, **kwargs)
    args, kwargs, bound = _bind_func(policy_for, *_func_first(args, kwargs))
    try:
        return wrapped(*args, **kwargs)
    except Exception as error:
        # By its traceback it keeps the function. What a task has raised is raised here when all are done; while what a
        # signal handler raises may leave some to be run.
        if has_raised(error):
            let_go(*bound)
        raise


def _bind_func(policy_for: PolicyFor, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs, tuple[BoundCallable, ...]]:
    """*args* and *kwargs* with the function that a pool calls bound, if it inherits; and what was bound."""
    # Asked for here: an exception that is kept, as map() raises those of the tasks, keeps the caller's variables.
    ctx = active()
    if ctx is None or not args or (snapshot := snapshot_for(policy_for, ctx, args[0])) is None:
        return args, kwargs, ()
    bound = t.cast(BoundCallable, bind(args[0], snapshot))
    return (bound, *args[1:]), kwargs, (bound,)


def _pool_call_async(policy_for: PolicyFor, wrapped: Wrapped, pool: t.Any, args: Args, kwargs: Kwargs) -> t.Any:
    if active() is None:
        return wrapped(*args, **kwargs)
    args, kwargs, bound = _bind_with_ends(policy_for, *_func_first(args, kwargs))
    result = wrapped(*args, **kwargs)
    if bound and getattr(result, "ready", bool)():
        let_go(*bound)  # no callback is called for an empty list
    return result


def _bind_with_ends(
    policy_for: PolicyFor, args: Args, kwargs: Kwargs
) -> tuple[Args, Kwargs, tuple[BoundCallable, ...]]:
    """The same for the function and both callbacks, which come fourth and fifth in each of these methods."""
    ctx = active()
    if ctx is None or not args:
        return args, kwargs, ()
    fns = [args[0], *(args[i] if i < len(args) else kwargs.get(name) for i, name in _CALLBACKS)]
    snapshots = [None if fn is None else snapshot_for(policy_for, ctx, fn) for fn in fns]
    if not any(snapshots):
        return args, kwargs, ()
    bound = bind_with_ends(fns, snapshots)
    names = [name for _, name in _CALLBACKS]
    return (bound[0], *args[1:3], *args[5:]), kwargs | dict(zip(names, bound[1:], strict=True)), bound


_CALLBACKS = ((3, "callback"), (4, "error_callback"))


def _func_first(args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
    if args or "func" not in kwargs:
        return args, kwargs
    return (kwargs["func"],), {name: value for name, value in kwargs.items() if name != "func"}


POINTS: tuple[PatchPoint, ...] = (
    *(
        PatchPoint("multiprocessing.pool", f"ThreadPool.{method}", _pool_call_async)
        for method in ("apply_async", "map_async", "starmap_async")
    ),
    *(PatchPoint("multiprocessing.pool", f"ThreadPool.{method}", _pool_call) for method in ("imap", "imap_unordered")),
    *(PatchPoint("multiprocessing.pool", f"ThreadPool.{method}", _pool_map) for method in ("map", "starmap")),
)
