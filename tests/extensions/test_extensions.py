"""Other extensions, in a thread and in a pool that a view starts."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from flask import Flask, g, session

from flaskthreads_autopatch import flask_context

from .helpers import Counts, Start

pytestmark = pytest.mark.extensions


def test_flask_login(installed: Flask, counts: Counts, start: Start) -> None:
    """current_user is loaded anew in the thread, and is the same person; what the view has is left alone."""
    from flask_login import LoginManager, UserMixin, current_user, login_required, login_user

    class User(UserMixin):  # type: ignore[misc]
        def __init__(self, id: str) -> None:
            self.id = id

    loaded = []
    manager = LoginManager(installed)

    @manager.user_loader
    def load(id: str) -> User:
        loaded.append(id)
        return User(id)

    @installed.get("/login/<id>")
    def login(id: str) -> dict[str, t.Any]:
        login_user(User(id))
        mine = current_user._get_current_object()
        theirs = start(lambda: current_user._get_current_object())
        return {"id": theirs.id, "same object": theirs is mine, "kept": current_user._get_current_object() is mine}

    @installed.get("/")
    @login_required
    def view() -> dict[str, t.Any]:
        return {"id": start(lambda: current_user.id), "authenticated": start(lambda: current_user.is_authenticated)}

    alice, bob, nobody = (installed.test_client() for _ in range(3))
    assert alice.get("/login/alice").get_json() == {"id": "alice", "same object": False, "kept": True}
    assert bob.get("/login/bob").get_json() == {"id": "bob", "same object": False, "kept": True}
    for client, id in ((alice, "alice"), (bob, "bob"), (alice, "alice")):
        loaded.clear()
        assert client.get("/").get_json() == {"id": id, "authenticated": True}
        assert loaded == [id] * 3  # by the view and by each thread
    assert nobody.get("/").status_code == 401
    assert counts.inherited == 8


def test_flask_babel_h8(installed: Flask, counts: Counts, start: Start) -> None:
    """A thread has the locale of its request; one that it forces is its own."""
    from flask import request
    from flask_babel import Babel, force_locale, format_decimal, get_locale, refresh

    Babel(installed, locale_selector=lambda: request.args["locale"])

    def force() -> list[str]:
        before = str(get_locale())
        with force_locale("fr"):
            during = str(get_locale())
        return [before, during, str(get_locale()), format_decimal(1.5)]

    forced: list[t.Any] = []

    def force_and_forget() -> str:
        refresh()
        forced.append(force_locale("fr"))  # kept, since it ends when nobody holds it
        forced[-1].__enter__()
        return str(get_locale())

    @installed.get("/")
    def view() -> dict[str, t.Any]:
        before = format_decimal(1.5)  # has the locale kept on g
        report = {"in the thread": start(force), "forgotten": start(force_and_forget)}
        return {**report, "view": [before, str(get_locale()), format_decimal(1.5)]}

    answer = installed.test_client().get("/?locale=de").get_json()
    assert answer["in the thread"] == ["de", "fr", "de", "1,5"]
    assert answer["forgotten"] == "fr"
    assert answer["view"] == ["1,5", "de", "1,5"]
    english = installed.test_client().get("/?locale=en").get_json()
    assert english["in the thread"] == ["en", "fr", "en", "1.5"]
    assert counts.inherited == 4


def test_flask_caching(installed: Flask, counts: Counts, start: Start) -> None:
    """The cache of the app, keyed by the request where it is asked to."""
    from flask_caching import Cache

    cache = Cache(installed, config={"CACHE_TYPE": "SimpleCache"})
    computed = []

    @cache.cached(timeout=60, query_string=True)
    def by_query() -> str:
        computed.append("by query")
        return str(g.user)

    @cache.memoize(60)
    def squared(number: int) -> int:
        computed.append(f"squared {number}")
        return number * number

    @installed.get("/<user>")
    def view(user: str) -> list[t.Any]:
        g.user = user
        return [start(by_query), start(lambda: squared(3)), by_query(), squared(3)]

    client = installed.test_client()
    assert client.get("/alice?q=1").get_json() == ["alice", 9, "alice", 9]
    assert client.get("/bob?q=2").get_json() == ["bob", 9, "bob", 9]
    assert client.get("/bob?q=1").get_json()[0] in ("alice", "bob")
    assert computed.count("squared 3") == 1
    assert counts.inherited == 6


def test_flask_limiter(installed: Flask, counts: Counts, start: Start) -> None:
    """What a thread hits counts for the client of its request, and not for another one's."""
    from flask import request
    from flask_limiter import Limiter, RateLimitExceeded

    limiter = Limiter(lambda: request.args["client"], app=installed, storage_uri="memory://")

    def hit() -> str:
        try:
            with limiter.limit("2/hour", scope="work"):
                return "done"
        except RateLimitExceeded:
            return "refused"

    @installed.get("/")
    @limiter.limit("4/hour")
    def view() -> list[str]:
        return [start(hit)]

    alice, bob = ({"client": name} for name in ("alice", "bob"))
    client = installed.test_client()
    assert [client.get("/", query_string=alice).get_json() for _ in range(4)] == [["done"]] * 2 + [["refused"]] * 2
    assert client.get("/", query_string=alice).status_code == 429
    assert [client.get("/", query_string=bob).get_json() for _ in range(3)] == [["done"]] * 2 + [["refused"]]
    assert counts.inherited == 7


def test_flask_wtf(installed: Flask, counts: Counts, start: Start) -> None:
    """A token made in a thread is good for the session of its request, and is the one that the view makes."""
    from flask_wtf.csrf import CSRFProtect, generate_csrf

    CSRFProtect(installed)

    @installed.get("/")
    def view() -> list[str]:
        return [start(generate_csrf), generate_csrf()]

    @installed.post("/")
    def post() -> str:
        return "accepted"

    client, stranger = installed.test_client(), installed.test_client()
    of_the_thread, of_the_view = client.get("/").get_json()
    assert client.post("/", headers={"X-CSRFToken": of_the_thread}).text == "accepted"
    assert client.post("/", headers={"X-CSRFToken": of_the_view}).text == "accepted"
    assert client.post("/").status_code == 400
    stranger.get("/")
    assert stranger.post("/", headers={"X-CSRFToken": of_the_thread}).status_code == 400
    assert counts.inherited == 2


def test_flask_jwt_extended(installed: Flask, counts: Counts, start: Start) -> None:
    """The identity that the view's decorator has verified is seen in the thread; without a token nobody's is."""
    from flask_jwt_extended import (
        JWTManager,
        create_access_token,
        get_jwt,
        get_jwt_identity,
        jwt_required,
        verify_jwt_in_request,
    )

    installed.config["JWT_SECRET_KEY"] = "tests " * 8
    JWTManager(installed)

    @installed.get("/")
    @jwt_required()
    def view() -> list[str]:
        return [start(get_jwt_identity), start(lambda: get_jwt()["sub"])]

    @installed.get("/verified-there")
    def verified_there() -> list[str | None]:
        return [start(lambda: verify_jwt_in_request() and get_jwt_identity()), jwt_of_the_view()]

    def jwt_of_the_view() -> str | None:
        try:
            return str(get_jwt_identity())
        except RuntimeError:
            return None  # not verified here

    client = installed.test_client()
    for user in ("alice", "bob"):
        with installed.app_context():
            headers = {"Authorization": f"Bearer {create_access_token(user)}"}
        assert client.get("/", headers=headers).get_json() == [user, user]
        assert client.get("/verified-there", headers=headers).get_json() == [user, None]
    assert client.get("/").status_code == 401
    assert counts.inherited == 6


def test_flask_session(installed: Flask, counts: Counts, start: Start, tmp_path: Path) -> None:
    """A session on the server: the thread reads and writes the one of its request, and it is saved once, by that."""
    from cachelib.file import FileSystemCache
    from flask_session import Session

    installed.config |= {"SESSION_TYPE": "cachelib", "SESSION_CACHELIB": FileSystemCache(str(tmp_path))}
    Session(installed)

    def work() -> str:
        session["from the thread"] = f"for {session['user']}"
        return str(session.sid)  # type: ignore[attr-defined]

    @installed.get("/<user>")
    def view(user: str) -> list[str]:
        session["user"] = user
        return [start(work), session.sid]  # type: ignore[attr-defined]

    @installed.get("/")
    def read() -> list[str]:
        return [start(lambda: session.get("user")), session.get("from the thread")]

    alice, bob = installed.test_client(), installed.test_client()
    for client, user in ((alice, "alice"), (bob, "bob")):
        of_the_thread, of_the_view = client.get(f"/{user}").get_json()
        assert of_the_thread == of_the_view
    assert alice.get("/").get_json() == ["alice", "for alice"]
    assert bob.get("/").get_json() == ["bob", "for bob"]
    assert counts.inherited == 4


@pytest.mark.skipif(
    not flask_context.REUSES_APP_CONTEXT,
    reason="Flask-DebugToolbar cannot serve with Flask 3.2, nor without us",
)
def test_flask_debugtoolbar(installed: Flask, counts: Counts, start: Start) -> None:
    """Switched on, it wraps the view and adds itself to the page, threads or not."""
    from flask_debugtoolbar import DebugToolbarExtension

    installed.debug = True
    installed.config["DEBUG_TB_INTERCEPT_REDIRECTS"] = False
    DebugToolbarExtension(installed)

    @installed.get("/<user>")
    def view(user: str) -> str:
        g.user = user
        return f"<html><body>{start(lambda: g.user)} {session.get('user')}</body></html>"

    for user in ("alice", "bob"):
        page = installed.test_client().get(f"/{user}").text
        assert f"{user} None" in page
        assert "flDebug" in page
    assert counts.inherited == 2
