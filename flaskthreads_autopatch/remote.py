"""The context carried to other processes: an executor over any executor, and one callable for any other API.

No engine of our own. What is pickled are three strings: where the app is found, where the callable is found, and the
message of a `Carrier`.
"""

from __future__ import annotations

import concurrent.futures
import functools
import importlib
import operator
import os
import sys
import threading
import typing as t
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from types import MethodType

from . import apps
from .apps import AppLoadError
from .carrier import MAX_SIZE, Carrier
from .extraction import Extraction, read
from .portable import NotPortableError
from .suppression import P, R

__all__ = ["AppLoadError", "NotPortableError", "RemoteAppContextExecutor", "carry"]


class RemoteAppContextExecutor(Executor):
    """An executor whose tasks run in app contexts of their own, in the processes of another executor.

    *executor*: a `concurrent.futures.ProcessPoolExecutor`, Dask's ``client.get_executor()``, loky, mpi4py.futures, or
    any other `concurrent.futures.Executor`. *app*: where its workers find the app, as for ``flask --app``. A task is
    given the entries of ``g`` that *g* names and, if a request is active at ``submit()`` or ``map()``, its method, its
    URL and the headers that *headers* names. Futures are the executor's own.

    ``shutdown()`` closes this executor; *executor* itself is shut down with it only if *owned* is true.
    """

    def __init__(
        self,
        executor: Executor,
        app: str,
        g: Iterable[str] = (),
        headers: Iterable[str] = (),
        *,
        request: bool | t.Literal["path"] = True,
        max_size: int = MAX_SIZE,
        owned: bool = False,
    ) -> None:
        if not isinstance(executor, Executor):
            raise TypeError(
                f"executor={executor!r}: allowed is a concurrent.futures.Executor. Of a Dask client, give its"
                " get_executor(); for other APIs there is carry()."
            )
        self._executor = executor
        self._carry = functools.partial(_carry, app, _carrier(app, g, headers, request, max_size))
        self._owned = owned
        # Reentrant: an engine that runs its tasks in place runs one that submits here again.
        self._lock = threading.RLock()
        self._open = True
        self._futures: weakref.WeakSet[Future[t.Any]] = weakref.WeakSet()

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Schedule ``fn(*args, **kwargs)``. Raises `NotPortableError` if it, or what *g* names, cannot travel."""
        task = self._carry(fn)
        with self._lock:
            self._check_open()
            future: Future[R] = self._executor.submit(task, *args, **kwargs)
            self._futures.add(future)
        return future

    def map(self, fn: Callable[..., R], *iterables: Iterable[t.Any], **options: t.Any) -> Iterator[R]:
        """The executor's own ``map()``, with its own *options*. Raises `NotPortableError`, as ``submit()`` does."""
        self._check_open()
        return self._executor.map(self._carry(fn), *iterables, **options)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks, and wait for what was submitted here; whoever reads a ``map()`` waits for that."""
        with self._lock:
            self._open = False
            futures = list(self._futures)
        if cancel_futures:
            futures = [future for future in futures if not future.cancel()]
        if self._owned:
            # Not all executors know the option.
            self._executor.shutdown(wait, **({"cancel_futures": True} if cancel_futures else {}))
        elif wait:
            concurrent.futures.wait(futures)

    def _check_open(self) -> None:
        if not self._open:
            raise RuntimeError("cannot schedule new futures after shutdown")


def carry(
    fn: Callable[P, R],
    app: str,
    g: Iterable[str] = (),
    headers: Iterable[str] = (),
    *,
    request: bool | t.Literal["path"] = True,
    max_size: int = MAX_SIZE,
) -> Carried[P, R]:
    """Return *fn* for other processes: each call there has the context that is active here and now.

    Does the same as `RemoteAppContextExecutor` for one callable, for any API that pickles it. Only strings are pickled.
    A job store, as APScheduler has them, refers to a callable by its name instead. It takes the result's ``run``.
    Raises `NotPortableError`.
    """
    is_text = type(g) is type(headers) is tuple and {str}.issuperset(map(type, g + headers))
    carrier = (_carrier_once if is_text else _carrier)(app, g, headers, request, max_size)
    return _Unnamed(app, _path_of(fn), carrier.take())


def _carrier(
    app: object, g: Iterable[str], headers: Iterable[str], request: bool | t.Literal["path"], max_size: int
) -> Carrier:
    if not isinstance(app, str) or not app:
        raise TypeError(
            f"app={app!r}: allowed is where a worker process finds the app, as for 'flask --app':"
            ' "shop:create_app" or "shop:app".'
        )
    return Carrier(app, g, headers, request=request, max_size=max_size)


_carrier_once: Callable[..., Carrier] = functools.lru_cache(maxsize=256, typed=True)(_carrier)


def _carry(app_path: str, carrier: Carrier, fn: Callable[P, R]) -> Carried[P, R]:
    return Carried(app_path, _path_of(fn), carrier.take())


class Carried(t.Generic[P, R]):
    """A callable of another process: where the app is found, where the function is found, what to fill in.

    Stored jobs refer to this class, and to its ``run``, by their names.
    """

    __slots__ = ("_strings",)

    def __init__(self, app_path: str, path: str, message: str) -> None:
        self._strings = (app_path, path, message)

    def __getattr__(self, name: str) -> str:
        # Engines show tasks under these names.
        if name in ("__name__", "__qualname__"):
            return self._strings[1].partition(":")[2]
        raise AttributeError(f"{Carried.__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> tuple[type[Carried[P, R]], tuple[str, str, str]]:
        return Carried, self._strings

    def __repr__(self) -> str:
        app_path, path, _ = self._strings
        return f"<{path} carried to a context of {app_path}>"

    def run(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Do what a call of this object does. As a method of it, a job store can store it with its object."""
        return self(*args, **kwargs)

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        app_path, path, message = self._strings
        app = apps.load(app_path)
        try:
            fn = _find(*path.split(":"))
        except (ImportError, AttributeError) as error:
            raise NotPortableError(
                f"{path!r} is not found in worker process {os.getpid()}: {error}. Move it to a module that the worker"
                " can import, and give the worker the same code."
            ) from error
        try:
            with Extraction(app, read(app, message, None), fn):
                return app.ensure_sync(fn)(*args, **kwargs)  # type: ignore[no-any-return]
        finally:
            # The traceback of an exception that is kept keeps this frame and its variables.
            del self, args, kwargs, message, fn


class _Unnamed(Carried[P, R]):
    """What `carry` returns: a `Carried` that is not stored by name.

    A job store would store the name of the class in place of an object with a ``__call__``, and the context would be
    lost. This class has the name of one that is local to a function, which a job store refuses.
    """

    __slots__ = ()
    __qualname__ = "carry.<locals>.Carried"

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]} (a job store takes its .run)>"

    @property
    def run(self) -> Callable[P, R]:
        """The method of a `Carried`, which a job store can store."""
        named: Carried[P, R] = Carried(*self._strings)
        return named.run


def _find(module: str, qualname: str) -> t.Any:
    found = sys.modules.get(module) or importlib.import_module(module)
    return getattr(found, qualname) if "." not in qualname else operator.attrgetter(qualname)(found)


def _path_of(fn: Callable[..., t.Any]) -> str:
    module, qualname = getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)
    try:
        found = _find(t.cast(str, module), t.cast(str, qualname))
    except (ImportError, AttributeError, TypeError, ValueError):
        found = None  # also where one of the two is no text, or empty
    # Each access to a class method makes a new object.
    is_there = found is fn or (type(fn) is MethodType and found == fn)
    if is_there and (module != "__main__" or _main_can_be_imported()):
        return f"{module}:{qualname}"
    raise NotPortableError(
        f"{qualname or type(fn).__qualname__!r} ({type(fn).__qualname__}, module {module!r}) cannot be found by name in"
        " another process. Allowed is a function at the top level of a module (or of a class in it): no lambda, no"
        " function in a function, no method of an object, no functools.partial, nothing typed at a prompt. Its"
        " arguments, an object too, go to submit()."
    )


def _main_can_be_imported() -> bool:
    # A worker makes the main module again from its spec or its file. A prompt, python -c and a pipe have neither. (The
    # functions of a package's or an archive's __main__ exist in a forked worker only; the future of another one fails.)
    main = sys.modules["__main__"]
    return getattr(main, "__spec__", None) is not None or os.path.isfile(getattr(main, "__file__", None) or "")
