"""What an audit knows of one place that starts threads or tasks: data only.

There is one record for each place and what it starts, however often that happens. A record has texts and numbers, and
none of the program's own values.
"""

from __future__ import annotations

import dataclasses
import typing as t
from collections.abc import Mapping

BY_A_RUN = "it is started by what would inherit, in no app context yet"
"""The reason of a place that has no context while the library observes, and would have one with inheritance on."""


class Key(t.NamedTuple):
    """What is counted in one record. A place that starts two functions, or for two views, has two records."""

    place: str
    """The place of origin, as ``shop/views.py:12 in checkout``: the first frame of own code that called ``start()``,
    ``submit()``, ``map()`` or a similar method. Empty if no such frame was found."""
    callable: str
    """What runs there, as ``module:qualname``: a target, a timer's function, a task, or a class of threads."""
    kind: str
    """``"thread"``, ``"greenlet"``, ``"task"`` or ``"callback"``."""
    app: str
    """The name of the app whose context was active at the start; empty if none was."""
    endpoint: str
    """The endpoint of the request that was active; empty outside of a request."""
    reason: str
    """Why it does not inherit; empty if it does."""


@dataclasses.dataclass
class Record:
    """The counts of one key, over all processes of the command."""

    key: Key
    starts: int = 0
    """How often it ran."""
    most_at_once: int = 0
    """How many ran at the same time, at most, in one process."""
    failed: int = 0
    """How many runs raised for want of a context: ``RuntimeError: Working outside of application context``."""
    raised: int = 0
    """How many runs raised another exception."""
    helped: int = 0
    """How many runs pushed a context of their own: ``with app.app_context()``, or a copied request context."""
    outlived: int = 0
    """How many runs ended, or still ran, after their parent's context had ended."""
    still_running: int = 0
    """How many of those still ran when their process ended, or when the record was read."""
    longest: float = 0.0
    """The longest time, in seconds, that a run went on after its parent's context had ended."""
    inherited: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """What it inherits, or would inherit: ``"request"``, ``"session"`` and ``"g.NAME"``, with the class of each value,
    as ``module:qualname``; with an empty text for the first two. ``current_app`` is not listed: it always is."""
    not_inherited: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Entries of ``g``, as ``"g.NAME"``, that are not inherited: the reason of each."""

    def as_data(self) -> dict[str, t.Any]:
        """Return the record as JSON has it: one flat object."""
        return {**self.key._asdict(), **{name: value for name, value in vars(self).items() if name != "key"}}

    @classmethod
    def from_data(cls, data: Mapping[str, t.Any]) -> Record:
        """Return the record that `as_data` has described. Other items of *data* are ignored. Raises `KeyError`."""
        fields = [field.name for field in dataclasses.fields(cls) if field.name != "key"]
        return cls(Key(*(data[name] for name in Key._fields)), **{name: data[name] for name in fields})

    def add(self, other: Record) -> None:
        """Add the counts of *other*, which has the same key and comes from another process."""
        for name in ("starts", "failed", "raised", "helped", "outlived", "still_running"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.most_at_once = max(self.most_at_once, other.most_at_once)
        self.longest = max(self.longest, other.longest)
        self.inherited = {**other.inherited, **self.inherited}
        self.not_inherited = {**other.not_inherited, **self.not_inherited}
