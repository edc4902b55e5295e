"""What an ASGI server loads: an application of this folder, behind asgiref's bridge. SERVED_MODULE names its module."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from typing import Any

from asgiref.wsgi import WsgiToAsgi

wrapped = importlib.import_module(os.environ["SERVED_MODULE"]).application


def closing(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
    """Close the response, which asgiref's bridge does not do (django/asgiref#587)."""
    response = wrapped(environ, start_response)
    try:
        for part in response:  # noqa: UP028 - `yield from` would close the response a second time
            yield part
    finally:
        getattr(response, "close", int)()


application = WsgiToAsgi(closing)
