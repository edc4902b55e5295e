"""What holds for every patch point."""

from __future__ import annotations

import pytest
import wrapt
from flask import Flask

from flaskthreads_autopatch import disable, install
from flaskthreads_autopatch.patching import points

from ..helpers import in_thread


class Duck:
    pass


@pytest.mark.parametrize("point", points.POINTS, ids=lambda point: point.attribute)
def test_a_call_without_an_instance_does_what_it_does_without_the_patches(app: Flask, point: points.PatchPoint) -> None:
    owner, attribute, _ = wrapt.resolve_path(point.module, point.attribute)

    def outcomes() -> list[str]:
        found = []
        for args in ((), (None,), (object(),), (Duck(),), (Duck(), 1), (Duck(), 1, [])):
            try:
                getattr(owner, attribute)(*args)
                found.append("")
            except Exception as error:
                found.append(repr(error))
        return found

    def on_and_off() -> None:
        install(app)
        on = outcomes()
        disable()
        assert on == outcomes()

    on_and_off()
    with app.app_context():
        on_and_off()
        install(app)
        in_thread(on_and_off)
