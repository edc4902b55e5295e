"""The result of an audit: what the command has found, as JSON, and with texts that can be printed."""

from __future__ import annotations

import dataclasses
import shlex
import typing as t
from collections.abc import Mapping

from ..names import printable
from .record import Key, Record
from .verdicts import worst_first

LONGEST_COMMAND = 200
"""The number of characters of the command that are shown."""


class Audit(t.NamedTuple):
    """What the command ``audit`` has found, as its JSON has it."""

    is_on: bool
    """Whether inheritance was on, not only observed."""
    command: list[str]
    version: str
    processes: int
    records: list[Record]

    @property
    def mode(self) -> str:
        """``"on"`` or ``"observe"``."""
        return "on" if self.is_on else "observe"

    @property
    def shown_command(self) -> str:
        """The command as a line of a shell, cut if it is very long, ready to be printed."""
        text = printable(shlex.join(self.command))
        return text if len(text) <= LONGEST_COMMAND else f"{text[:LONGEST_COMMAND]}..."

    def as_data(self) -> dict[str, t.Any]:
        """Return the audit as JSON has it, with the verdict on each place, the worst first."""
        return {
            "mode": self.mode,
            "command": self.command,
            "version": self.version,
            "processes": self.processes,
            "places": [
                {**record.as_data(), "verdict": verdict.name, "proposal": verdict.proposal}
                for record, verdict in worst_first(self.records, self.is_on)
            ],
        }

    @classmethod
    def from_data(cls, data: Mapping[str, t.Any]) -> Audit:
        """Return the audit that `as_data` has described. Raises `KeyError` or `TypeError` for other data."""
        places = [Record.from_data(place) for place in data["places"]]
        found = cls(data["mode"] == "on", [*data["command"]], data["version"], data["processes"], places)
        found.as_data()  # This raises if a text is where a number should be, or the other way round.
        return found

    def printable(self) -> Audit:
        """Return the audit with all texts of its records escaped, where they cannot be printed.

        They come from the audited program, and must neither begin a line nor control a terminal.
        """
        return self._replace(records=[_printable(record) for record in self.records])

    def title(self) -> str:
        """Return what was audited, and how much was found, as sentences."""
        how = "with inheritance on" if self.is_on else "observed only: nothing was inherited"
        places, processes = counted(len(self.records), "place"), counted(self.processes, "process")
        return f"flaskthreads-autopatch audit of: {self.shown_command} ({how}). {places} in {processes}."


def counted(count: int, what: str) -> str:
    """Return *count* and the right form of *what*: ``1 place``, ``2 processes``."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}{'es' if what.endswith('s') else 's'}"


def _printable(record: Record) -> Record:
    return dataclasses.replace(
        record,
        key=Key(*map(printable, record.key)),
        inherited=_texts(record.inherited),
        not_inherited=_texts(record.not_inherited),
    )


def _texts(texts: Mapping[str, str]) -> dict[str, str]:
    return {printable(name): printable(text) for name, text in texts.items()}
