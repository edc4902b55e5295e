"""The command ``audit``: runs a command, records what it starts in all of its processes, and shows a table of it.

The command is a child process, which has this process's input, outputs and terminal. The table goes to stderr at the
end, however the command ended.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import typing as t

import click

from .environment import AUDIT_FOLDER_VARIABLE, OBSERVE, VARIABLE, has_kill_switch
from .launch import cannot_run, launch_environment

# The launcher, which shares its command line with this module, starts services. It does not wait for the imports of the
# audit, so those are in the functions.
if t.TYPE_CHECKING:
    import subprocess

    from .audit.report import Audit

BROKEN_PROMISE = 3
"""The exit status if ``--on --compare`` finds a promise broken, or if there is nothing to compare."""

FORWARDED = ("SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT")
"""The signals that are passed on to the command. The last two come from a terminal too, which sends them to both."""
_OF_TERMINAL = ("SIGINT", "SIGQUIT")


class _File(click.Path):
    """The name of a file that can be written. What it holds is replaced at the end."""

    name = "file"

    def convert(self, value: t.Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        is_new = not os.path.exists(value)
        try:
            with open(value, "a"):
                pass
            if is_new:
                os.remove(value)
        except (OSError, ValueError) as error:
            self.fail(
                f"{value!r} cannot be written: {_reason(error)}. Name a file in a folder that exists.", param, ctx
            )
        return os.path.abspath(str(value))


class _Audit(click.Path):
    """The name of a file that an earlier audit has written with ``--json``; it is read at once."""

    name = "file"

    # A `click.Path` returns the name; this one returns what the file holds.
    def convert(self, value: t.Any, param: click.Parameter | None, ctx: click.Context | None) -> Audit:  # type: ignore[override]
        import json

        from .audit.report import Audit

        advice = "Name a file that an earlier audit has written with --json."
        try:
            with open(value, encoding="utf-8") as file:
                return Audit.from_data(json.load(file))
        except OSError as error:
            self.fail(f"{value!r} cannot be read: {_reason(error)}. {advice}", param, ctx)
        except (ValueError, KeyError, TypeError, AttributeError):
            self.fail(f"{value!r} is not an audit. {advice}", param, ctx)


@click.command(
    short_help="Show what a command starts, and what would inherit.",
    context_settings={"allow_interspersed_args": False},
)
@click.option("--json", "json_file", type=_File(), metavar="FILE", help="Write the places to FILE too, as JSON.")
@click.option("--html", "html_file", type=_File(), metavar="FILE", help="Write a page to FILE that can be sorted.")
@click.option("--on", is_flag=True, help="Enable the library, instead of only observing.")
@click.option("--compare", "earlier", type=_Audit(), metavar="FILE", help="Show what has changed since FILE (--json).")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def audit(
    json_file: str | None, html_file: str | None, on: bool, earlier: Audit | None, command: tuple[str, ...]
) -> None:
    """Run COMMAND, and show which threads and tasks it starts, from where, and what they would inherit.

    Nothing is inherited meanwhile, except with --on. The table is printed on stderr when COMMAND has ended, for all of
    its processes; end a server with Ctrl-C. The exit status is that of COMMAND. With --on and --compare it is 3 if a
    place fails that the earlier audit had as fixed, or inherits and was not to.
    """
    import tempfile

    from .audit.compared import broken
    from .audit.files import collect
    from .audit.report import Audit
    from .audit.table import DEFAULT_WIDTH, table

    if json_file is not None and json_file == html_file:
        raise click.UsageError(f"--json and --html name the same file, {json_file!r}. Name two.")
    if has_kill_switch(os.environ):
        _say(
            f"nothing is recorded and no file is written, because {VARIABLE}={os.environ[VARIABLE]} is set in the"
            " environment. Unset it."
        )
        status = _run(command, dict(os.environ))
        sys.exit(status if earlier is None else status or BROKEN_PROMISE)
    try:
        folder = tempfile.mkdtemp(prefix="flaskthreads-autopatch-audit-")
    except OSError as error:
        raise click.ClickException(f"No temporary folder can be made: {_reason(error)}. Set TMPDIR to one.") from None
    try:
        if not on:
            with open(os.path.join(folder, OBSERVE), "x"):
                pass  # See `is_observing_by_environment`.
        status = _run(
            command, launch_environment(os.environ, "1" if on else OBSERVE, **{AUDIT_FOLDER_VARIABLE: folder})
        )
        try:
            records, processes = collect(folder)
        except Exception as error:
            # A damaged file must not take the command's status away.
            _say(f"what was recorded cannot be read: {type(error).__name__}: {error}.")
            sys.exit(status or 1)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    version: str = sys.modules["flaskthreads_autopatch"].__version__
    found = Audit(on, [*command], version, processes, records)
    promises = [] if earlier is None else broken(earlier, found)
    # The files first: stderr may be a pipe that nobody reads to the end.
    if json_file is not None:
        _write(json_file, _as_json(found))
    if html_file is not None:
        _write(html_file, _as_page(found, earlier))
    click.echo(f"\n{table(found, earlier, shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns)}", err=True, nl=False)
    _explain(found)
    for promise in promises:
        _say(promise)
    if earlier is not None and not records:
        _say("there is nothing to compare, because nothing was recorded.")
        sys.exit(status or BROKEN_PROMISE)
    sys.exit(BROKEN_PROMISE if promises else status)


def _as_json(found: Audit) -> str:
    import json

    return json.dumps(found.as_data(), indent=2) + "\n"


def _as_page(found: Audit, earlier: Audit | None) -> str:
    from .audit.page import page

    return page(found, earlier)


def _explain(found: Audit) -> None:
    """Say why there may be no place."""
    from .audit.report import counted

    if not found.processes:
        _say(
            "no process of the command has imported Flask while it was recorded. Check that the command runs your app,"
            f" in the Python that has flaskthreads-autopatch ({sys.executable}), without -I, -E or -S, and that it"
            " passes its environment on."
        )
    elif not found.records:
        _say(f"nothing was started in {counted(found.processes, 'process')}. Have the command do what your users do.")


def _run(command: tuple[str, ...], environ: dict[str, str]) -> int:
    """Run *command* to its end, and return its exit status as a shell has it: 128 and the number of a signal."""
    import subprocess

    waiting: list[int] = []
    process: subprocess.Popen[bytes] | None = None

    def forward(number: int, frame: object) -> None:
        if process is None:
            waiting.append(number)
        elif signal.Signals(number).name not in _OF_TERMINAL or not _is_in_foreground():
            process.send_signal(number)

    handlers = {}
    for name in FORWARDED:
        number = getattr(signal, name, None)
        # What is ignored here, as under nohup, is ignored in the command too.
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            handlers[number] = signal.signal(number, forward)
    try:
        try:
            process = subprocess.Popen(command, env=environ)
        except OSError as error:
            sentence, status = cannot_run(command[0], error)
            _say(sentence)
            sys.exit(status)
        for number in waiting:
            process.send_signal(number)
        status = process.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return 128 - status if status < 0 else status


def _is_in_foreground() -> bool:
    """Return whether Ctrl-C reaches this process, and so the command, from a terminal."""
    try:
        with open("/dev/tty") as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except (OSError, AttributeError):
        return False


def _write(file: str, text: str) -> None:
    try:
        # A name that is no text, as a file name may be, must not take the rest away.
        with open(file, "w", encoding="utf-8", errors="backslashreplace") as out:
            out.write(text)
    except OSError as error:
        _say(f"{file!r} cannot be written: {_reason(error)}.")


def _say(sentence: str) -> None:
    click.echo(f"flaskthreads-autopatch: {sentence}", err=True)


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
