"""The layers that are switched on and off: ours, a bare one in our place, and those of others.

Each of the others carries a value of its own into threads or tasks, in its own way.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import threading
import typing as t
from collections.abc import Callable, Iterator
from concurrent.futures.thread import ThreadPoolExecutor

import wrapt

import flaskthreads_autopatch
from flaskthreads_autopatch.patching import points

VALUE = "carried"


class Layer:
    """Something that patches. By itself it carries nothing."""

    def on(self) -> None:
        """Patch."""

    def off(self) -> None:
        """Take the patches back, as far as it can."""

    @contextlib.contextmanager
    def carry(self) -> Iterator[None]:
        """Have the value in place that threads started inside should see."""
        yield

    def seen(self) -> object:
        """The value as it is seen here; None if it is not."""
        return None


class Ours(Layer):
    def on(self) -> None:
        flaskthreads_autopatch.enable()

    def off(self) -> None:
        flaskthreads_autopatch.disable()


class StandIn(Layer):
    """In our place: wrapt layers at the same places which do nothing. What happens to these is not our doing."""

    def __init__(self) -> None:
        self.handles: dict[points.PatchPoint, t.Any] = {}

    def on(self) -> None:
        # Again, where it was taken out by somebody else, and only there: as we do.
        for point in points.POINTS:
            chain = wrapt.wrapper_chain(wrapt.resolve_path(point.module, point.attribute)[2])
            if not any(entry is self.handles.get(point) for entry in chain):
                self.handles[point] = wrapt.wrap_function_wrapper(point.module, point.attribute, _pass)

    def off(self) -> None:
        for point, handle in self.handles.items():
            with contextlib.suppress(wrapt.WrapperNotOutermostError):
                wrapt.unwrap_object(point.module, point.attribute, handle, missing_ok=True)


def _pass(wrapped: Callable[..., t.Any], instance: t.Any, args: t.Any, kwargs: t.Any) -> t.Any:
    return wrapped(*args, **kwargs)


class OpenTelemetry(Layer):
    """``ThreadingInstrumentor``. Its off switch removes whichever wrapt layer is the outermost."""

    def on(self) -> None:
        from opentelemetry.instrumentation.threading import ThreadingInstrumentor

        ThreadingInstrumentor().instrument()

    def off(self) -> None:
        from opentelemetry.instrumentation.threading import ThreadingInstrumentor

        ThreadingInstrumentor().uninstrument()

    @contextlib.contextmanager
    def carry(self) -> Iterator[None]:
        from opentelemetry import context

        token = context.attach(context.set_value("tests", VALUE))
        yield
        context.detach(token)

    def seen(self) -> object:
        from opentelemetry import context

        return context.get_value("tests")


class Sentry(Layer):
    """``ThreadingIntegration``. It patches for good, and does nothing without a client."""

    def on(self) -> None:
        import sentry_sdk
        from sentry_sdk.integrations.threading import ThreadingIntegration

        sentry_sdk.init(integrations=[ThreadingIntegration()], default_integrations=False)

    def off(self) -> None:
        import sentry_sdk

        sentry_sdk.get_global_scope().set_client(None)

    @contextlib.contextmanager
    def carry(self) -> Iterator[None]:
        import sentry_sdk

        with sentry_sdk.isolation_scope() as scope:
            scope.set_tag("tests", VALUE)
            yield

    def seen(self) -> object:
        import sentry_sdk

        return sentry_sdk.get_isolation_scope()._tags.get("tests")


class Datadog(Layer):
    """The futures patch: it rewrites the code of the innermost function, in place."""

    def on(self) -> None:
        from ddtrace.contrib.internal.futures.patch import patch

        patch()

    def off(self) -> None:
        from ddtrace.contrib.internal.futures.patch import unpatch

        unpatch()

    @contextlib.contextmanager
    def carry(self) -> Iterator[None]:
        from ddtrace.trace import Context, tracer

        before = tracer.current_trace_context()
        tracer.context_provider.activate(Context(trace_id=17, span_id=4))
        yield
        tracer.context_provider.activate(before)

    def seen(self) -> object:
        from ddtrace.trace import tracer

        context = tracer.current_trace_context()
        return VALUE if context is not None and context.trace_id == 17 else None


class NewRelic(Layer):
    """It patches nothing of threads and pools, and much of Flask, for good. Carries its transaction into a view."""

    def on(self) -> None:
        import newrelic.agent

        newrelic.agent.initialize()
        newrelic.agent.register_application(timeout=30.0)

    def seen(self) -> object:
        import newrelic.agent

        return VALUE if newrelic.agent.current_transaction() is not None else None


_value: contextvars.ContextVar[object] = contextvars.ContextVar("tests.patchers", default=None)


class _Carrier(Layer):
    """Carries a context variable, by assigning ``run`` and by wrapping the task."""

    @contextlib.contextmanager
    def carry(self) -> Iterator[None]:
        token = _value.set(VALUE)
        yield
        _value.reset(token)

    def seen(self) -> object:
        return _value.get()


def _carrying(fn: Callable[..., t.Any]) -> Callable[..., t.Any]:
    value = _value.get()

    def call(*args: t.Any, **kwargs: t.Any) -> t.Any:
        token = _value.set(value)
        try:
            return fn(*args, **kwargs)
        finally:
            _value.reset(token)

    return call


class Plain(_Carrier):
    """Functions in the place of functions. Off: what was found is put back, whatever stands there by now."""

    def on(self) -> None:
        self.start, self.submit = start, submit = threading.Thread.start, ThreadPoolExecutor.submit

        @functools.wraps(start)
        def plain_start(thread: threading.Thread) -> None:
            thread.run = _carrying(thread.run)  # type: ignore[method-assign]
            start(thread)

        @functools.wraps(submit)
        def plain_submit(pool: t.Any, fn: Callable[..., t.Any], /, *args: t.Any, **kwargs: t.Any) -> t.Any:
            return submit(pool, _carrying(fn), *args, **kwargs)

        threading.Thread.start = plain_start  # type: ignore[method-assign]
        ThreadPoolExecutor.submit = plain_submit  # type: ignore[method-assign]

    def off(self) -> None:
        threading.Thread.start = self.start  # type: ignore[method-assign]
        ThreadPoolExecutor.submit = self.submit  # type: ignore[method-assign]


class Wrapt(_Carrier):
    """wrapt's wrappers. Off: they alone are taken out, wherever they lie."""

    def on(self) -> None:
        def start(wrapped: t.Any, thread: threading.Thread, args: t.Any, kwargs: t.Any) -> t.Any:
            thread.run = _carrying(thread.run)  # type: ignore[method-assign]
            return wrapped(*args, **kwargs)

        def submit(wrapped: t.Any, pool: t.Any, args: t.Any, kwargs: t.Any) -> t.Any:
            return wrapped(_carrying(args[0]), *args[1:], **kwargs)

        self.handles = [
            (threading.Thread, "start", wrapt.wrap_function_wrapper(threading.Thread, "start", start)),
            (ThreadPoolExecutor, "submit", wrapt.wrap_function_wrapper(ThreadPoolExecutor, "submit", submit)),
        ]

    def off(self) -> None:
        for handle in self.handles:
            with contextlib.suppress(wrapt.WrapperNotOutermostError):
                wrapt.unwrap_object(*handle, missing_ok=True)


OTHERS: dict[str, type[Layer]] = {
    "opentelemetry": OpenTelemetry,
    "sentry": Sentry,
    "datadog": Datadog,
    "newrelic": NewRelic,
    "plain": Plain,
    "wrapt": Wrapt,
}
IN_OUR_PLACE: dict[str, type[Layer]] = {"ours": Ours, "stand-in": StandIn, "nothing": Layer}
