"""What all processes of a command have recorded, read from the folder in which each of them keeps its counts."""

from __future__ import annotations

import os
import typing as t

from .counts import TEXTS, read
from .record import Key, Record


class Collected(t.NamedTuple):
    """The records of all processes of a command."""

    records: list[Record]
    """One for each key."""
    processes: int
    """How many processes have recorded. None did if none has imported Flask, or if the library was kept off."""


def collect(folder: str) -> Collected:
    """Return what the processes have recorded in *folder*, whether they have ended or not. Raises `OSError`."""
    files = sorted(name for name in os.listdir(folder) if name.endswith(TEXTS))
    records: dict[Key, Record] = {}
    for name in files:
        for record in read(os.path.join(folder, name)):
            if not record.starts:
                continue
            if (known := records.setdefault(record.key, record)) is not record:
                known.add(record)
    return Collected(list(records.values()), len(files))
