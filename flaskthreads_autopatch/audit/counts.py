"""The counts of one process, in a file that outlives it: a worker that is killed loses nothing.

The numbers are in a file that is mapped into memory, so that a count costs no system call, and the kernel keeps what a
killed process has counted. The texts are in a second file, to which a line is appended for each new one. Both are
closed between two uses: a program that closes all file descriptors, to become a daemon, must not make us write into one
of its own files, nor close one.
"""

from __future__ import annotations

import itertools
import json
import mmap
import os
import struct
import sys
import typing as t

from ..environment import print_to_stderr
from .record import Key, Record

NUMBERS = ("starts", "most_at_once", "failed", "raised", "helped", "outlived", "still_running", "longest")
"""The fields of a `Record` that are in the file, in its order."""

_LAYOUT = struct.Struct(f"<{len(NUMBERS) - 1}qd")

MOST_KEYS = 1000
"""How many keys a process records. The others share one record."""
MOST_NAMES = 100
"""How many entries of ``g`` are listed for one key."""
_LONGEST_TEXT = 500

TEXTS, COUNTS = ".texts", ".counts"
"""The ends of the names of both files."""


class Counts:
    """The counts of one key, in memory and in the file."""

    __slots__ = ("_mapped", "offset", "record", "running")

    def __init__(self, record: Record, mapped: mmap.mmap, offset: int) -> None:
        self.record = record
        self.running = 0
        """How many runs are going on right now."""
        self._mapped = mapped
        self.offset = offset
        """Where the numbers are in the file."""

    def write(self) -> None:
        """Write the numbers to the file."""
        record = self.record
        _LAYOUT.pack_into(
            self._mapped,
            self.offset % _CHUNK,
            record.starts,
            record.most_at_once,
            record.failed,
            record.raised,
            record.helped,
            record.outlived,
            record.still_running,
            record.longest,
        )


_CHUNK = mmap.ALLOCATIONGRANULARITY
"""How much of the file is mapped at once, in bytes. A file grows by this, since a program may fork for each job."""


class ProcessCounts:
    """The counts of this process: in files in *folder*, or in memory alone if that is empty or cannot be written."""

    def __init__(self, folder: str) -> None:
        self.counts: dict[Key, Counts] = {}
        self._numbers = itertools.count()
        self._chunks: dict[int, mmap.mmap] = {}
        self._name = os.path.join(folder, f"{os.getpid()}-{os.urandom(4).hex()}") if folder else ""

    def make_files(self) -> None:
        """Make the files, which are otherwise made when there is something to count."""
        self._chunk(0)

    def _chunk(self, number: int) -> mmap.mmap:
        known = self._chunks.get(number)
        return self._chunks.setdefault(number, self._new_chunk(number)) if known is None else known

    def _new_chunk(self, number: int) -> mmap.mmap:
        if self._name:
            try:
                with open(f"{self._name}{COUNTS}", "w+b" if number == 0 else "r+b") as file:
                    # Written, not only made longer: on a full disk this raises, and a mapping would end the process.
                    file.seek(number * _CHUNK)
                    file.write(bytes(_CHUNK))
                    file.flush()
                    made = _mapped(file.fileno(), number * _CHUNK)
                if number == 0:
                    with open(f"{self._name}{TEXTS}", "x"):
                        pass
                return made
            except (OSError, ValueError) as error:
                self._give_up(error)
        return mmap.mmap(-1, _CHUNK)

    def _give_up(self, error: Exception) -> None:
        folder, self._name = os.path.dirname(self._name), ""
        print_to_stderr(f"The audit cannot write to {folder!r}: {error}. What is new in this process is not in it.")

    def of(self, key: Key) -> Counts:
        """Return the counts of *key*, or those of all further keys if there are too many."""
        known = self.counts.get(key)
        if known is not None:
            return known
        # A signal handler may interrupt this and call it again, so the number is taken in a single operation.
        if len(self.counts) >= MOST_KEYS or (number := next(self._numbers)) >= MOST_KEYS:
            key, number = _OTHERS, MOST_KEYS
            if (known := self.counts.get(key)) is not None:
                return known
        shown = Key(*(text[:_LONGEST_TEXT] for text in key))
        offset = number * _LAYOUT.size
        made = Counts(Record(shown), self._chunk(offset // _CHUNK), offset)
        if (known := self.counts.setdefault(key, made)) is made:
            self._append({"offset": offset, "key": shown})
        return known

    def note_names(self, counts: Counts, inherited: t.Mapping[str, str], not_inherited: t.Mapping[str, str]) -> None:
        """Add the names that are new to those of *counts*."""
        record = counts.record
        for known, found, field in (
            (record.inherited, inherited, "inherited"),
            (record.not_inherited, not_inherited, "not_inherited"),
        ):
            if found.keys() <= known.keys() or len(known) >= MOST_NAMES:
                continue
            new = {str(k)[:_LONGEST_TEXT]: v[:_LONGEST_TEXT] for k, v in found.items() if k not in known}
            setattr(record, field, {**known, **new})
            self._append({"offset": counts.offset, field: new})

    def _append(self, line: dict[str, t.Any]) -> None:
        if self._name:
            try:
                with open(f"{self._name}{TEXTS}", "a") as file:
                    file.write(json.dumps(line) + "\n")
            except OSError as error:
                self._give_up(error)


if sys.version_info >= (3, 13) and sys.platform != "win32":

    def _mapped(descriptor: int, offset: int) -> mmap.mmap:
        return mmap.mmap(descriptor, _CHUNK, offset=offset, trackfd=False)

else:

    def _mapped(descriptor: int, offset: int) -> mmap.mmap:
        made = mmap.mmap(descriptor, _CHUNK, offset=offset)
        _never_closed.append(made)
        return made


_never_closed: list[mmap.mmap] = []
"""Before Python 3.13, a mapping has a file descriptor of its own, and closes it at its end. That may be another file by
then, of a program that has closed all file descriptors. So a mapping is kept until the process ends."""

_OTHERS = Key("", "", "", "", "", f"more than {MOST_KEYS} places were recorded in this process; these are the others")


def read(texts: str) -> list[Record]:
    """Return what a process has recorded, or is recording. *texts* is the name of its file of texts."""
    by_offset: dict[int, Record] = {}
    with open(texts) as file:
        for text in file:
            if not text.endswith("\n"):
                break  # The process was killed, or is about to write the rest.
            line = json.loads(text)
            if "key" in line:
                by_offset[line["offset"]] = Record(Key(*line["key"]))
            elif (record := by_offset.get(line["offset"])) is not None:
                record.inherited = {**record.inherited, **line.get("inherited", {})}
                record.not_inherited = {**record.not_inherited, **line.get("not_inherited", {})}
    with open(f"{texts.removesuffix(TEXTS)}{COUNTS}", "rb") as file:
        numbers = file.read()
    for offset, record in by_offset.items():
        for name, number in zip(NUMBERS, _LAYOUT.unpack_from(numbers, offset), strict=True):
            setattr(record, name, number)
    return list(by_offset.values())
