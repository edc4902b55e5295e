"""H24: patches around `Thread.start`, of the application and of others, are looked through to the starter.

Each case runs in a process of its own, with wrapt's extension module and without it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .layouts import APP, INHERITS, POOL, PROBE, ask, install, write

# Another package's layer, which nothing but its own code refers to.
AGENT = {
    "thirdpool/agent.py": """
        def counted(start):
            return lambda self: start.__get__(self, type(self))()
        """
}

# What a company has in its own code, to count threads, or to name them.
IN_HOUSE = {
    "closure": """
        import threading

        def patch():
            start = threading.Thread.start
            def counting(self):
                return start(self)
            threading.Thread.start = counting
        """,
    "global": """
        import threading

        start = None

        def counting(self):
            return start(self)

        def patch():
            global start
            if start is None:
                start = threading.Thread.start
                threading.Thread.start = counting
        """,
    "default": """
        import threading

        def patch():
            def counting(self, start=threading.Thread.start):
                return start(self)
            threading.Thread.start = counting
        """,
    "partialmethod": """
        import functools
        import threading

        def counting(self, start):
            return start(self)

        def patch():
            threading.Thread.start = functools.partialmethod(counting, threading.Thread.start)
        """,
    "wraps": """
        import functools
        import threading

        def counted(start):
            @functools.wraps(start)
            def counting(*args, **kwargs):
                return start(*args, **kwargs)
            return counting

        def patch():
            threading.Thread.start = counted(threading.Thread.start)
        """,
    "wrapt": """
        import threading
        import wrapt

        def counting(wrapped, instance, args, kwargs):
            return wrapped(*args, **kwargs)

        def patch():
            wrapt.wrap_function_wrapper(threading.Thread, "start", counting)
        """,
    "descriptor": """
        import threading
        import types

        class Counting:
            def __init__(self, start):
                self.start = start

            def __call__(self, thread):
                return self.start(thread)

            def __get__(self, thread, cls):
                return self if thread is None else types.MethodType(self, thread)

        def patch():
            threading.Thread.start = Counting(threading.Thread.start)
        """,
    "descriptor over another package's layer": """
        import threading
        import types

        from thirdpool.agent import counted

        class Counting:
            def __init__(self, start):
                self.start = start

            def __call__(self, thread):
                return self.start(thread)

            def __get__(self, thread, cls):
                return self if thread is None else types.MethodType(self, thread)

        def patch():
            threading.Thread.start = Counting(counted(threading.Thread.start))
        """,
    "another package's layer over a descriptor that makes objects": """
        import threading

        from thirdpool.agent import counted

        class Bound:
            __slots__ = ("layer", "thread")

            def __init__(self, layer, thread):
                self.layer, self.thread = layer, thread

            def __call__(self):
                return self.layer.start(self.thread)

        class Counting:
            __slots__ = ("start",)

            def __init__(self, start):
                self.start = start

            def __get__(self, thread, cls):
                return self if thread is None else Bound(self, thread)

        def patch():
            for _ in range(2):
                threading.Thread.start = Counting(counted(threading.Thread.start))
                threading.Thread.start = counted(vars(threading.Thread)["start"])
        """,
    "opentelemetry": """
        from opentelemetry.instrumentation.threading import ThreadingInstrumentor

        def patch():
            ThreadingInstrumentor().instrument()
        """,
    "sentry": """
        import sentry_sdk

        def patch():
            sentry_sdk.init("http://key@127.0.0.1:1/1", default_integrations=False)
            from sentry_sdk.integrations.threading import ThreadingIntegration
            ThreadingIntegration.setup_once()
        """,
    "in-house over opentelemetry": """
        import threading
        from opentelemetry.instrumentation.threading import ThreadingInstrumentor

        start = None

        def counting(self):
            return start(self)

        def patch():
            global start
            if start is None:
                ThreadingInstrumentor().instrument()
                start = threading.Thread.start
                threading.Thread.start = counting
        """,
}
NEEDS_PATCHERS = ("opentelemetry", "sentry", "in-house over opentelemetry")
PATCHES = [pytest.param(name, marks=[pytest.mark.patchers] if name in NEEDS_PATCHERS else []) for name in IN_HOUSE]

ORDERS = {
    "above": "app = shop.create_app(); patching.patch()",
    "below": "patching.patch(); app = shop.create_app()",
    "both": "patching.patch(); app = shop.create_app(); patching.patch()",
    "installed again": "app = shop.create_app(); patching.patch(); app = shop.create_app()",
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("extension", ["with wrapt's extension", "without"])
def test_h24_a_patch_of_start_is_no_starter(tmp_path: Path, patch: str, order: str, extension: str) -> None:
    site = install(tmp_path / "site-packages", "thirdpool", POOL | AGENT)
    checkout = write(tmp_path / "checkout", {"shop.py": APP + PROBE, "patching.py": IN_HOUSE[patch]})
    code = f"import json, shop, patching\n{ORDERS[order]}\nprint(json.dumps(shop.probe(app)))"
    variables = {} if extension.startswith("with ") else {"WRAPT_DISABLE_EXTENSIONS": "1"}
    assert ask(code, checkout, site, **variables) == INHERITS
