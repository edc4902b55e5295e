"""The options: where they come from, which win, and what a wrong one gets."""

from __future__ import annotations

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


OPTIONS = "contextvars, exclude, ignore, origins, own, preload, provide, request, share, warn_after"
SHAIR = "FLASKTHREADS_AUTOPATCH_SHAIR"
WORDS = "1, true, yes, on, 0, false, no or off"

# Option and value, and what the message says before and after the value.
BY_KEYWORD = [
    ("share", "perhaps", "share must be True or False, not "),
    ("request", None, "request must be True or False, not "),
    ("exclude", "db", "exclude must be a list or tuple of patterns (such as ['token', 'shop.models:Cart']), not "),
    ("exclude", ("",), "exclude must be a list or tuple of patterns (such as ['token', 'shop.models:Cart']), not "),
    ("ignore", (1,), "ignore must be a list or tuple of patterns (such as ['shop.monitor', 'shop.jobs:Watch']), not "),
    (
        "own",
        ["acme-common"],
        "own must be a list or tuple of import names of packages (such as ['acme_common', 'acme_*']), not ",
    ),
    ("warn_after", "30", "warn_after must be a number of seconds above 0 or None, not "),
]
IN_CONFIG = [
    ("SHARE", "maybe", f"SHARE must be True, False, {WORDS}, not "),
    ("EXCLUDE", 5, "EXCLUDE must be patterns with commas between them (such as token, shop.models:Cart), not "),
    ("WARN_AFTER", -1, "WARN_AFTER must be a number of seconds above 0 or None, not "),
]
IN_ENVIRONMENT = [
    ("SHARE", "so-so", f"SHARE must be {WORDS}, not "),
    (
        "OWN",
        "acme-common, acme",
        "OWN must be import names of packages with commas between them (such as acme_common, acme_*), not ",
    ),
    ("WARN_AFTER", "soon", "WARN_AFTER must be a number of seconds above 0, not "),
]


@pytest.mark.parametrize(("option", "value", "message"), BY_KEYWORD)
def test_a_wrong_keyword_is_named_with_what_is_allowed_its_value_and_its_source(
    app: Flask, option: str, value: object, message: str
) -> None:
    keywords: t.Any = {option: value}
    for call in (lambda: install(app, **keywords), lambda: enable(**keywords), lambda: Policy(**keywords)):
        with pytest.raises(PolicyError) as caught:
            call()
        assert isinstance(caught.value, ValueError)
        assert str(caught.value) == f"{message}{value!r} (set by keyword)."
        assert caught.value.source == "keyword"
        assert not is_enabled()


@pytest.mark.parametrize(("option", "value", "message"), IN_CONFIG)
def test_a_wrong_option_in_the_config_is_named_alike(option: str, value: object, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        resolve({}, {f"FLASKTHREADS_AUTOPATCH_{option}": value}, {})
    assert str(caught.value) == f"FLASKTHREADS_AUTOPATCH_{message}{value!r} (set in the Flask config)."
    assert caught.value.source == "Flask config"


@pytest.mark.parametrize(("option", "value", "message"), IN_ENVIRONMENT)
def test_a_wrong_option_in_the_environment_is_named_alike(option: str, value: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        resolve({}, {}, {f"FLASKTHREADS_AUTOPATCH_{option}": value})
    assert str(caught.value) == f"FLASKTHREADS_AUTOPATCH_{message}{value!r} (set in the environment)."
    assert caught.value.source == "environment"


def test_an_option_that_does_not_exist_is_named_with_those_that_do(app: Flask) -> None:
    keywords: t.Any = {"shair": True}
    for call in (lambda: install(app, **keywords), lambda: enable(**keywords)):
        with pytest.raises(PolicyError) as caught:
            call()
        text = f"shair is not an option (set to True by keyword). Did you mean share? The options are {OPTIONS}."
        assert str(caught.value) == text
    assert not is_enabled()
    for config, environ, where in (
        ({SHAIR: 1}, {}, "1 in the Flask config"),
        ({}, {SHAIR: "1"}, "'1' in the environment"),
    ):
        with pytest.raises(PolicyError) as caught:
            resolve({}, config, environ)
        nearest = "Did you mean FLASKTHREADS_AUTOPATCH_SHARE?"
        assert str(caught.value) == f"{SHAIR} is not an option (set to {where}). {nearest} The options are {OPTIONS}."


def test_a_wrong_option_in_the_environment_is_one_line_and_nothing_is_patched(
    app: Flask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLASKTHREADS_AUTOPATCH_SHARE", "maybe")
    for switch_on in (enable, lambda: install(app)):
        switch_on()
        assert not is_enabled()
        (line,) = capsys.readouterr().err.splitlines()
        sentence = f"FLASKTHREADS_AUTOPATCH_SHARE must be {WORDS}, not 'maybe' (set in the environment)."
        assert line == f"flaskthreads_autopatch: {sentence} Nothing is patched."


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
