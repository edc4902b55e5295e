"""Where the instructions of one case go, by Python function and by C function, as callgrind counts them.

To callgrind, all Python functions are one: the interpreter's loop. ``frames.c`` therefore runs each of them through a C
function of its own. The first table gives a Python function all that is counted in it and in the C functions that it
calls, but nothing of the Python functions that those call. The second one gives each C function its own instructions.

Running a Python function through one of C's takes some 150 instructions more, which are counted too.
"""

from __future__ import annotations

import collections
import sys
import sysconfig
import tempfile
import typing as t
from collections.abc import Iterable
from pathlib import Path

from .counting import HERE, LOOPS, Failed, run, script, script_environ

TOP = 30
STUBS = 1500
"""More Python functions than a case calls."""

# What runs before any Python function must not be skipped: callgrind would have nothing to give its instructions to.
_NEVER_SKIPPED = ("py", "_dl", "main", "(below main)", "_start", "start_thread", "clone")

RUN = """
import ctypes, sys
library, names, path, *arguments = sys.argv[1:]
sys.path.insert(0, path.rpartition("/")[0])
import measured
ctypes.PyDLL(library).run_frames_apart(names.encode())
measured.main(arguments[0], int(arguments[1]))
"""


def profile(root: Path, case: str) -> str:
    """Two tables for *case*, with the package below *root*."""
    if sys.version_info < (3, 11):
        raise Failed(f"--profile needs Python 3.11 or newer; this is {sys.version.split()[0]}.")
    with tempfile.TemporaryDirectory() as folder:
        profiler = _Profiler(root, case, Path(folder))
        by_c = profiler.count(())
        skipped = sorted({_plain(name) for name in by_c if not name.startswith(_NEVER_SKIPPED)})
        by_python = profiler.count(f"--fn-skip={name}" for name in skipped)
        names = profiler.names()
    return "\n".join(
        (
            f"{case}, once through: instructions by Python function, with the C functions that it calls\n",
            *_table((names.get(name, f"in C: {name}"), count) for name, count in _merged(by_python)),
            "\nand by C function\n",
            *_table(_merged(by_c)),
        )
    )


class _Profiler:
    def __init__(self, root: Path, case: str, folder: Path) -> None:
        self._root, self._case = root, case
        self._library, self._names, self._report = folder / "frames.so", folder / "names", folder / "callgrind.out"
        # With LD_BIND_NOW no function is looked up while it is counted.
        self._environ = script_environ(root) | {"LD_BIND_NOW": "1"}
        run(script(case, 0), self._environ)  # fails for a case that does not exist
        stubs = folder / "stubs.h"
        stubs.write_text(f"#define STUBS(X) {' '.join(f'X({i})' for i in range(STUBS))}\n")
        flags = ("-O1", "-shared", "-fPIC", f"-I{sysconfig.get_path('include')}", "-include", str(stubs))
        run(["gcc", *flags, str(HERE / "frames.c"), "-o", str(self._library)], self._environ)
        self._command = [sys.executable, "-c", RUN, str(self._library), str(self._names)]
        run([*self._command, *script(case, 0)[1:]], self._environ)  # compiles what has not been compiled yet

    def count(self, options: Iterable[str]) -> dict[str, float]:
        """The instructions of each C function itself, with *options* for callgrind."""
        options = ("--tool=callgrind", "--compress-strings=no", "--compress-pos=no", *options)
        few, many = (self._callgrind(options, script(self._case, loops)[1:]) for loops in (0, LOOPS))
        return {name: count / LOOPS for name, value in many.items() if (count := value - few[name])}

    def _callgrind(self, options: tuple[str, ...], arguments: list[str]) -> collections.Counter[str]:
        out = f"--callgrind-out-file={self._report}"
        run(["valgrind", *options, out, *self._command, *arguments], self._environ)
        found: collections.Counter[str] = collections.Counter()
        name, of_callee = "", False
        with self._report.open() as lines:
            for line in lines:
                if line.startswith("fn="):
                    name = line[3:].strip()
                elif line.startswith("calls="):
                    of_callee = True  # the next line is what was counted in the function that is called
                elif line[0].isdigit():
                    if not of_callee:
                        found[name] += int(line.split()[1])
                    of_callee = False
        return found

    def names(self) -> dict[str, str]:
        """The Python functions, by the names of their C functions."""
        places = [str(path) + "/" for path in (*map(sysconfig.get_path, ("purelib", "stdlib")), self._root)]
        found = {}
        for line in self._names.read_text().splitlines():
            stub, place, function = line.split(" ", 2)
            for folder in places:
                place = place.removeprefix(folder)
            found[stub] = f"{function}  {place}"
        return found


def _plain(name: str) -> str:
    return name.partition("'")[0]  # callgrind's name'2 is a recursive call of it


def _merged(counts: dict[str, float]) -> t.Iterator[tuple[str, float]]:
    merged: collections.Counter[str] = collections.Counter()
    for name, count in counts.items():
        merged[_plain(name)] += count  # type: ignore[assignment]  # a Counter of floats
    yield from merged.most_common()


def _table(counts: Iterable[tuple[str, float]]) -> list[str]:
    rows = list(counts)
    lines = [f"{count:10,.0f}  {name}" for name, count in rows[:TOP]]
    lines.append(f"{sum(count for _, count in rows[TOP:]):10,.0f}  in {max(0, len(rows) - TOP)} more")
    return [*lines, f"{sum(count for _, count in rows):10,.0f}  together"]
