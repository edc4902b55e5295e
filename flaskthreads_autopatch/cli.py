"""The command line: ``run`` enables the library for a command, ``status`` reports on it, and ``doctor`` tests it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import sys
import typing as t

import click

from .environment import VARIABLE, has_kill_switch

if t.TYPE_CHECKING:
    from flask import Flask

STARTUP_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "startup")
"""The folder which, on ``PYTHONPATH``, enables the library in every Python that starts."""


@click.group(name="flaskthreads-autopatch")
@click.version_option(package_name="flaskthreads-autopatch")
def main() -> None:
    """Threads, timers and pool tasks inherit Flask's app context."""


@main.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(command: tuple[str, ...]) -> None:
    """Start COMMAND, and every process that it starts, with the library enabled.

    The options are set by environment variables, such as FLASKTHREADS_AUTOPATCH_SHARE=1. With FLASKTHREADS_AUTOPATCH=0
    the command is started as it is without the launcher.
    """
    # Python ignores these signals from its start, and the command would inherit that.
    for name in ("SIGPIPE", "SIGXFSZ"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        os.execvpe(command[0], command, launch_environment(os.environ))
    except OSError as error:
        reason, status = error.strerror, 126
        if isinstance(error, FileNotFoundError):
            if shutil.which(command[0]):
                reason = "the interpreter that its first line names was not found"
            else:
                status = 127
        click.echo(f"flaskthreads-autopatch: cannot run {command[0]!r}: {reason}.", err=True)
        sys.exit(status)


def launch_environment(environ: t.Mapping[str, str]) -> dict[str, str]:
    """Return *environ* with FLASKTHREADS_AUTOPATCH set, and the start-up folder first on PYTHONPATH.

    With the kill switch, *environ* is returned as it is. It is looked for even if this process runs with ``-E``,
    because the command itself reads the environment.
    """
    if has_kill_switch(environ):
        return dict(environ)
    path = environ.get("PYTHONPATH", "")
    folders = [folder for folder in path.split(os.pathsep) if folder != STARTUP_FOLDER] if path else []
    return {**environ, VARIABLE: "1", "PYTHONPATH": os.pathsep.join([STARTUP_FOLDER, *folders])}


_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_app = click.option("--app", metavar="IMPORT", help="The Flask app or factory, as in 'shop:create_app'.")


@main.command("status")
@_app
@_as_json
def status_command(app: str | None, as_json: bool) -> None:
    """Show whether the library is enabled, for which apps, with which options, and the layers of each patch point."""
    _status(None if app is None else _load(app), as_json)


@main.command("doctor")
@_app
@_as_json
def doctor_command(app: str | None, as_json: bool) -> None:
    """Show the status, and test that threads inherit an app context of the app. Exit 0 only if nothing is wrong."""
    _doctor(_app_without_routes() if app is None else _load(app), as_json)


@click.group("autopatch")
def flask_commands() -> None:
    """Show or test how threads inherit the app context."""


@flask_commands.command("status")
@_as_json
@click.pass_context
def flask_status(ctx: click.Context, as_json: bool) -> None:
    """Show whether the library is enabled for this app, with which options, and the layers of each patch point."""
    _status(_loaded_by_flask(ctx), as_json)


@flask_commands.command("doctor")
@_as_json
@click.pass_context
def flask_doctor(ctx: click.Context, as_json: bool) -> None:
    """Show the status, and test that threads inherit an app context of this app. Exit 0 only if nothing is wrong."""
    _doctor(_loaded_by_flask(ctx), as_json)


def _load(path: str) -> Flask:
    from flask.cli import ScriptInfo

    return ScriptInfo(app_import_path=path).load_app()


def _loaded_by_flask(ctx: click.Context) -> Flask:
    from flask.cli import ScriptInfo

    return ctx.ensure_object(ScriptInfo).load_app()


def _app_without_routes() -> Flask:
    from flask import Flask

    return Flask("doctor")


def _status(app: Flask | None, as_json: bool) -> None:
    # The app itself is not used. It has been loaded because its module or factory may call install().
    from . import doctor
    from .switch import status

    if as_json:
        click.echo(json.dumps(doctor.as_data(status()), indent=2))
    else:
        _print(doctor.report(status()))


def _doctor(app: Flask, as_json: bool) -> None:
    from . import doctor
    from .switch import status

    checks = doctor.self_test(app)
    # The status is read after the self-test, because enable() applies to an app from its first capture on.
    found = status()
    problems = doctor.problems(app, found, checks)
    if as_json:
        parts = {
            "status": doctor.as_data(found),
            "self_test": [dataclasses.asdict(c) for c in checks],
            "views_outside_own_code": doctor.views_outside(app),
        }
        click.echo(json.dumps({"well": not problems, "problems": problems, **parts}, indent=2))
    else:
        _print(doctor.report(found))
        _print(doctor.report_views(app))
        _print(doctor.report_checks(app, checks))
        _print(problems or ["All is well."])
    sys.exit(1 if problems else 0)


def _print(lines: t.Iterable[str]) -> None:
    for line in lines:
        click.echo(line)
