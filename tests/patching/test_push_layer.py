"""Our own push of an app context passes our layer on it by, and no other one."""

from __future__ import annotations

import typing as t

import pytest
import wrapt
from flask import Flask
from flask.ctx import AppContext

from flaskthreads_autopatch import flask_context, install

from ..helpers import in_thread


@pytest.mark.parametrize("before_us", [False, True])
def test_the_layer_of_another_patcher_is_called(app: Flask, before_us: bool) -> None:
    pushed: list[object] = []

    def note(wrapped: t.Any, ctx: AppContext, args: t.Any, kwargs: t.Any) -> object:
        pushed.append(ctx)
        return wrapped(*args, **kwargs)

    def wrap() -> t.Any:
        return wrapt.wrap_object("flask.ctx", "AppContext.push", wrapt.FunctionWrapper, (note,))

    layer = wrap() if before_us else None
    install(app)
    layer = layer or wrap()
    try:
        with app.app_context():
            assert in_thread(flask_context.active) is pushed[1]
    finally:
        wrapt.unwrap_object("flask.ctx", "AppContext.push", layer)
    assert len(pushed) == 2
