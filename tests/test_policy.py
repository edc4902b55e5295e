"""The options: where they come from, which win, and what a wrong one gets."""

from __future__ import annotations

import re
import sqlite3
import typing as t

import pytest
from flask import Flask

from flaskthreads_autopatch import Policy, PolicyError, enable, install, is_enabled
from flaskthreads_autopatch.policy import resolve


def test_defaults() -> None:
    assert resolve({}, {}, {}) == Policy(
        share=False, request=True, preload=False, exclude=(), ignore=(), contextvars=False
    )


def test_keyword_before_config_before_environment() -> None:
    environ = {f"FLASKTHREADS_AUTOPATCH_{name}": "1" for name in ("SHARE", "PRELOAD", "CONTEXTVARS")}
    config: dict[str, t.Any] = {"FLASKTHREADS_AUTOPATCH_SHARE": False, "FLASKTHREADS_AUTOPATCH_PRELOAD": False}
    assert resolve({"share": True}, config, environ) == Policy(share=True, preload=False, contextvars=True)


def test_a_config_may_have_keys_that_are_no_text() -> None:
    assert resolve({}, {1: "one", "FLASKTHREADS_AUTOPATCH_SHARE": True}, {}).share  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", True),
        ("true", True),
        ("YES", True),
        ("On", True),
        ("0", False),
        ("false", False),
        ("No", False),
        ("off", False),
    ],
)
def test_words(text: str, value: bool) -> None:
    assert resolve({}, {}, {"FLASKTHREADS_AUTOPATCH_REQUEST": text}).request is value
    assert resolve({}, {"FLASKTHREADS_AUTOPATCH_REQUEST": text}, {}).request is value


def test_empty_is_not_given() -> None:
    assert resolve({}, {"FLASKTHREADS_AUTOPATCH_IGNORE": ""}, {"FLASKTHREADS_AUTOPATCH_SHARE": ""}) == Policy()


def test_lists_are_comma_separated() -> None:
    environ = {"FLASKTHREADS_AUTOPATCH_EXCLUDE": "db, shop.models:Cart ,", "FLASKTHREADS_AUTOPATCH_IGNORE": "a.b"}
    policy = resolve({}, {"FLASKTHREADS_AUTOPATCH_IGNORE": ["c", "d"]}, environ)
    assert (policy.exclude, policy.ignore) == (("db", "shop.models:Cart"), ("c", "d"))


def test_numbers_from_prefixed_environment_are_read() -> None:
    # app.config.from_prefixed_env() reads "1" as the number 1
    assert resolve({}, {"FLASKTHREADS_AUTOPATCH_SHARE": 1}, {}).share is True


WRONG: list[tuple[dict[str, t.Any], dict[str, t.Any], tuple[str, ...]]] = [
    ({"share": "yes"}, {}, ("share='yes'", "keyword", "True and False")),
    ({"exclude": "db"}, {}, ("exclude='db'", "a tuple of patterns")),
    ({"ignore": (1,)}, {}, ("ignore=(1,)", "a tuple of patterns")),
    ({"exclude": ("",)}, {}, ("exclude=('',)",)),
    ({"shair": True}, {}, ("shair=True", "the options are contextvars, exclude, ignore, own, preload, request, share")),
    ({}, {"FLASKTHREADS_AUTOPATCH_SHARE": "maybe"}, ("FLASKTHREADS_AUTOPATCH_SHARE='maybe'", "Flask config", "1 true")),
    ({}, {"FLASKTHREADS_AUTOPATCH_EXCLUDE": 5}, ("FLASKTHREADS_AUTOPATCH_EXCLUDE=5", "comma separated")),
    ({}, {"FLASKTHREADS_AUTOPATCH_SHAIR": 1}, ("FLASKTHREADS_AUTOPATCH_SHAIR=1", "the options are")),
]


@pytest.mark.parametrize(("keywords", "config", "said"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_option_is_named_with_its_value_and_what_is_allowed(
    app: Flask, keywords: dict[str, t.Any], config: dict[str, t.Any], said: tuple[str, ...]
) -> None:
    app.config.update(config)
    with pytest.raises(PolicyError) as caught:
        resolve(keywords, app.config, {})
    assert isinstance(caught.value, ValueError)
    for words in said:
        assert words in str(caught.value)
    assert not is_enabled()
    if keywords:
        with pytest.raises(PolicyError, match=re.escape(str(caught.value))):
            install(app, **keywords)
        with pytest.raises(PolicyError):
            enable(**keywords)
        with pytest.raises((PolicyError, TypeError)):
            Policy(**keywords)
    assert not is_enabled()


def test_a_wrong_option_in_the_environment_is_one_line_and_nothing_is_patched(
    app: Flask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLASKTHREADS_AUTOPATCH_SHARE", "maybe")
    for switch_on in (enable, lambda: install(app)):
        switch_on()
        assert not is_enabled()
        (line,) = capsys.readouterr().err.splitlines()
        assert "FLASKTHREADS_AUTOPATCH_SHARE='maybe' (environment)" in line


def test_thread_bound_types_are_matched_along_the_mro_without_an_import() -> None:
    class Mine(sqlite3.Connection):
        pass

    session = type("Session", (), {"__module__": "sqlalchemy.orm.session", "__qualname__": "Session"})
    mine = type("MySession", (session,), {})
    policy = Policy()
    assert "sqlite3 refuses" in str(policy.why_thread_bound(Mine))
    assert "unit of work" in str(policy.why_thread_bound(mine))
    assert policy.why_thread_bound(dict) is None


def test_ignored_paths_cover_what_lies_inside() -> None:
    policy = Policy(ignore=("shop.jobs", "shop.tasks:Worker*", "other:fn"))

    def fn(module: str, qualname: str) -> t.Any:
        return type("Fn", (), {"__module__": module, "__qualname__": qualname})

    def ignored(module: str, qualname: str) -> bool:
        found = policy.why_task_not_inherited(fn(module, qualname))
        assert found is None or "ignored by" in found
        return found is not None

    assert ignored("shop.jobs", "anything")
    assert ignored("shop.jobs.nightly", "Job.run")
    assert ignored("shop.tasks", "WorkerPool.run")
    assert ignored("other", "fn")
    assert ignored("other", "fn.<locals>.inner")
    assert not ignored("shop.jobsite", "anything")
    assert not ignored("shop.tasks", "Task")
    assert not ignored("other", "fnord")
