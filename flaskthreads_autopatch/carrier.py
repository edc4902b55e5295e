"""The context carried to another process: `Carrier.inject` where a task is sent, `Carrier.extract` where it runs.

Both sides have an allow-list. The sender writes down what it names, and the receiver uses what its own one names, so
that a forged message cannot set anything else.
"""

from __future__ import annotations

import sys
import typing as t
from collections.abc import Iterable, Mapping, MutableMapping

from flask import Flask
from flask.ctx import AppContext

from . import apps, flask_context, signature, wire
from .extraction import Extraction, read
from .portable import AllowList, NotPortableError, take
from .switch import policy_or_default, unwrap_proxy
from .wire import CarrierError

__all__ = ["KEY", "MAX_SIZE", "Carrier", "CarrierError", "NotPortableError"]

KEY = "flaskthreads_autopatch"
"""Under this key a message is found in the headers of a task."""

MAX_SIZE = 64 * 1024
"""The longest message, in bytes. RabbitMQ drops the connection for a header that is larger than a frame of 128 KiB."""

Headers = t.TypeVar("Headers", bound=MutableMapping[str, t.Any])


class Carrier:
    """Carries the context of a task in the headers of its message, over any engine that has such headers.

    *app*: the Flask app, or where a worker finds it, as for ``flask --app``. *g*: the entries of ``g`` that are
    carried. *headers*: the headers of the request that are carried. *request*: with True, method and URL of the request
    are carried as well; with ``"path"``, the URL without its query string; with False, nothing of it. *signed*: the
    messages are signed with the app's ``SECRET_KEY``, and no other ones are used. *max_size*: the longest message, in
    bytes. Raises `TypeError` for wrong options.

    Both sides make the same carrier. The receiver uses what its own *g*, *headers* and *request* name.
    """

    def __init__(
        self,
        app: Flask | str,
        g: Iterable[str] = (),
        headers: Iterable[str] = (),
        *,
        request: bool | t.Literal["path"] = True,
        signed: bool = False,
        max_size: int = MAX_SIZE,
    ) -> None:
        if not isinstance(app, Flask) and (not isinstance(app, str) or not app):
            raise TypeError(
                f'app={app!r}: allowed is a Flask app, or where a worker process finds it, as for "flask --app":'
                ' "shop:create_app" or "shop:app".'
            )
        if type(signed) is not bool:
            raise TypeError(f"signed={signed!r}: allowed are True and False.")
        if type(max_size) is not int or max_size < 1:
            raise TypeError(f"max_size={max_size!r}: allowed is a number of bytes above 0.")
        self._app = app if isinstance(app, str) else unwrap_proxy(app)
        self._allowed = AllowList.of(g, headers, request)
        self._signed = signed
        self._max_size = max_size
        self._more = signature.LENGTH if signed else 0

    def __repr__(self) -> str:
        return f"<Carrier to {self._app!r}>"

    def inject(self, headers: Headers, context: tuple[str, ...] = ()) -> Headers:
        """Write what is carried of the active context into *headers*, any mutable mapping, and return it.

        Nothing is written where no context of the app is active. A message that is there already is kept: a retry runs
        with what its first attempt was sent with. *context*: strings that are signed too, such as the name of the task
        and its id. Raises `NotPortableError`.
        """
        check_context(context)
        if KEY not in headers and (text := self.take(context)):
            headers[KEY] = text
        return headers

    def extract(self, headers: Mapping[str, t.Any] | None, context: tuple[str, ...] = ()) -> Extraction:
        """Return a context manager: inside, an app context of its own is active, filled from *headers*.

        It is a new app context, whatever is active already, and a request context if a request was carried. It is torn
        down at the end, with the exception that the block raised, and nothing of it is left. Use it once, and leave it
        in the thread or asyncio task in which it was entered. Without a message, nothing is filled in.

        Raises `CarrierError` for a message that cannot be used, and `AppLoadError`.
        """
        check_context(context)
        text = None if headers is None else headers.get(KEY)
        return self.open(text, context, _block(context))

    def take(self, context: tuple[str, ...] = ()) -> str:
        """Return the message for the context that is active here; ``""`` if there is nothing to carry."""
        ctx = self.active()
        if ctx is None:
            return ""
        text = take(ctx, self._allowed, policy_or_default(ctx.app), self._max_size, self._more)
        if not text or not self._signed:
            return text
        try:
            return signature.sign(ctx.app, context, text)
        except signature.NoSecretKey:
            raise NotPortableError(_NO_SECRET_KEY.format(app=ctx.app)) from None

    def active(self) -> AppContext | None:
        """Return the app context that is active here, unless it is known to be one of another app; else None."""
        ctx = flask_context.active()
        if ctx is None or (isinstance(self._app, Flask) and not apps.is_twin(ctx.app, self._app)):
            return None  # A process may have several apps; a task has the values of its own app only (H40).
        return ctx

    def open(self, text: t.Any, context: tuple[str, ...], shown: object) -> Extraction:
        """Do what `extract` does with the message itself. *shown* stands for the code in the block."""
        app = apps.load(self._app) if isinstance(self._app, str) else self._app
        if text and self._signed:
            text = self._verified(app, context, text)
        return Extraction(app, read(app, text, self._allowed), shown)

    def forward(self, text: t.Any, context: tuple[str, ...], next_context: tuple[str, ...]) -> str:
        """Return the message *text*, which came with the task *context*, for the task *next_context*.

        The result is ``""`` if the message cannot be used.
        """
        if not text or not self._signed:
            return t.cast(str, text) or ""
        app = apps.load(self._app) if isinstance(self._app, str) else self._app
        try:
            return signature.sign(app, next_context, self._verified(app, context, text))
        except CarrierError:
            return ""

    def _verified(self, app: Flask, context: tuple[str, ...], text: t.Any) -> str:
        try:
            verified = signature.verified(app, context, text) if type(text) is str else None
        except signature.NoSecretKey:
            raise CarrierError(_NO_SECRET_KEY.format(app=app)) from None
        if verified is None:
            raise wire.unusable("with signed=True, it must have the signature of this app for this very task")
        return verified


_NO_SECRET_KEY = "signed=True needs a secret key, and {app!r} has none. Set SECRET_KEY in its config."


_TEXT = frozenset({str})


def check_context(context: tuple[str, ...]) -> None:
    """Raise `TypeError` unless *context* is a tuple of strings."""
    # Two calls, where asking each part by isinstance() would take ten.
    if type(context) is tuple and _TEXT.issuperset(map(type, context)):
        return
    if type(context) is not tuple or not all(isinstance(part, str) for part in context):
        raise TypeError(f'context={context!r}: allowed is a tuple of strings, as ("send_invoice", task_id).')


class Block:
    """Stands in `running` and in the log for the code that runs in an extracted context."""

    def __init__(self, module: str, name: str) -> None:
        self.__module__ = module
        self.__qualname__ = name


def _block(context: tuple[str, ...]) -> Block:
    caller = sys._getframe(2)
    # Engines enter and leave the context in methods of their own: there, the name of the task says more.
    name = context[0] if context else getattr(caller.f_code, "co_qualname", caller.f_code.co_name)
    return Block(caller.f_globals.get("__name__", ""), name)
