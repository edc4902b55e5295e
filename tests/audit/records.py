"""Records for tests: what an audit may have seen of one place."""

from __future__ import annotations

import typing as t

from flaskthreads_autopatch import observation
from flaskthreads_autopatch.audit.record import Key, Record
from flaskthreads_autopatch.audit.report import Audit

INHERITED = {"request": "", "session": "", "g.user": "shop.models:User"}
NO_CONTEXT = observation.NO_CONTEXT
NO_HAND = "neither acme.pool:worker nor acme.pool.base, which starts it, is own code"


def record(callable: str = "shop.mail:send", reason: str = "", kind: str = "thread", **counts: t.Any) -> Record:
    """A record of a place in a request of the app ``shop``, which runs *callable*."""
    where = {"place": "shop/views.py:12 in checkout", "app": "shop", "endpoint": "checkout"}
    where.update((name, counts.pop(name)) for name in tuple(counts) if name in where)
    key = Key(callable=callable, kind=kind, reason=reason, **where)
    return Record(key, **{"starts": 5, "most_at_once": 2, "inherited": {} if reason else INHERITED, **counts})


def audit(*records: Record, is_on: bool = False) -> Audit:
    """An audit of ``pytest -q`` in three processes."""
    return Audit(is_on, ["pytest", "-q"], "0.1.0", 3, [*records])
