"""The command line.

``run`` enables the library for a command, ``audit`` observes what a command starts, ``status`` reports on the library,
and ``doctor`` tests it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import traceback
import typing as t

import click

from . import audit_command
from .launch import cannot_run, launch_environment

if t.TYPE_CHECKING:
    from flask import Flask


@click.group(name="flaskthreads-autopatch")
@click.version_option(package_name="flaskthreads-autopatch")
def main() -> None:
    """Threads, timers and pool tasks inherit Flask's app context."""


@main.command(
    short_help="Start a command with the library enabled.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
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
        sentence, status = cannot_run(command[0], error)
        click.echo(f"flaskthreads-autopatch: {sentence}", err=True)
        sys.exit(status)


main.add_command(audit_command.audit)


_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_app = click.option("--app", metavar="IMPORT", help="As in 'shop:create_app'; else the app that flask finds.")
_verbose = click.option("-v", "--verbose", is_flag=True, help="Show the traceback if the app cannot be loaded.")


@main.command("status", short_help="Show what is enabled, and with which options.")
@_app
@_as_json
@_verbose
def status_command(app: str | None, as_json: bool, verbose: bool) -> None:
    """Show whether the library is enabled, for which apps, with which options, and the layers of each patch point.

    The app is not used. It is loaded because its module or factory may call install(). Exit 2 if it cannot be loaded.
    """
    _load(app, as_json, verbose)
    _status(as_json)


@main.command("doctor", short_help="Test that threads inherit an app context.")
@_app
@_as_json
@_verbose
def doctor_command(app: str | None, as_json: bool, verbose: bool) -> None:
    """Show the status, and test that threads inherit an app context of the app.

    Exit 0 if nothing is wrong, 1 if something is, and 2 if the app could not be loaded. Where there is no app, an empty
    one is tested.
    """
    found = _load(app, as_json, verbose)
    if found is None and not as_json:
        click.echo("No app was found (--app, FLASK_APP, wsgi.py, app.py), so an empty one is tested.")
    _doctor(found or _app_without_routes(), as_json)


@click.group("autopatch", short_help="Show or test how threads inherit.")
def flask_commands() -> None:
    """Show or test how threads inherit the app context."""


@flask_commands.command("status", short_help="Show what is enabled, and with which options.")
@_as_json
@_verbose
@click.pass_context
def flask_status(ctx: click.Context, as_json: bool, verbose: bool) -> None:
    """Show whether the library is enabled for this app, with which options, and the layers of each patch point."""
    _load_by_flask(ctx, as_json, verbose)
    _status(as_json)


@flask_commands.command("doctor", short_help="Test that threads inherit an app context.")
@_as_json
@_verbose
@click.pass_context
def flask_doctor(ctx: click.Context, as_json: bool, verbose: bool) -> None:
    """Show the status, and test that threads inherit an app context of this app.

    Exit 0 if nothing is wrong, 1 if something is, and 2 if the app could not be loaded.
    """
    _doctor(_load_by_flask(ctx, as_json, verbose), as_json)


def _load(path: str | None, as_json: bool, verbose: bool) -> Flask | None:
    """Load the app that *path* names, or the one that `flask` finds; None if there is no app to load."""
    from flask.cli import ScriptInfo, load_dotenv

    if path is None and not os.environ.get("FLASK_SKIP_DOTENV"):
        load_dotenv()
    path = path or os.environ.get("FLASK_APP") or None
    if path is None and not any(os.path.exists(name) for name in ("wsgi.py", "app.py")):
        return None
    return _loaded(ScriptInfo(app_import_path=path).load_app, path, as_json, verbose)


def _load_by_flask(ctx: click.Context, as_json: bool, verbose: bool) -> Flask:
    from flask.cli import ScriptInfo

    info = ctx.ensure_object(ScriptInfo)
    return _loaded(info.load_app, info.app_import_path, as_json, verbose)


def _loaded(load: t.Callable[[], Flask], path: str | None, as_json: bool, verbose: bool) -> Flask:
    """Return what *load* does, or exit with status 2: one line on stderr, and the traceback if *verbose*."""
    try:
        return load()
    except (Exception, SystemExit) as error:
        name = "in wsgi.py or app.py" if path is None else repr(path)
        problem = f"The app {name} could not be loaded: {_line_of(error)}."
        click.echo(f"flaskthreads-autopatch: {problem}{'' if verbose else ' -v shows the traceback.'}", err=True)
        if verbose:
            # Flask puts the traceback of an import into the message of its own exception.
            click.echo(str(error) if "Traceback" in str(error) else traceback.format_exc(), err=True)
        if as_json:
            click.echo(json.dumps({"well": False, "problems": [problem]}, indent=2))
        sys.exit(2)


def _line_of(error: BaseException) -> str:
    """Return *error* as one line: its type, its message, and the last line of a traceback in that."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Flask's own exception says in its first line what failed.
    first = lines[0].rstrip(":.") if lines else ""
    text = first if isinstance(error, click.ClickException) else f"{type(error).__name__}: {first}".rstrip(": ")
    return f"{text}: {lines[-1].rstrip('.')}" if len(lines) > 1 else text


def _app_without_routes() -> Flask:
    from flask import Flask

    return Flask("doctor")


def _status(as_json: bool) -> None:
    from . import doctor
    from .switch import status

    if as_json:
        click.echo(json.dumps(doctor.as_data(status()), indent=2))
    else:
        _print(doctor.report(status()))


def _doctor(app: Flask, as_json: bool) -> None:
    from . import doctor, unused_options
    from .switch import status

    checks = doctor.self_test(app)
    # The status is read after the self-test, because enable() applies to an app from its first capture on.
    found = status()
    problems = doctor.problems(app, found, checks)
    unused = unused_options.find(app, os.environ)
    if as_json:
        parts = {
            "status": doctor.as_data(found),
            "self_test": [dataclasses.asdict(c) for c in checks],
            "views_outside_own_code": doctor.views_outside(app),
            "unused_options": unused,
        }
        click.echo(json.dumps({"well": not problems, "problems": problems, **parts}, indent=2))
    else:
        _print(doctor.report(found))
        _print(doctor.report_views(app))
        _print(unused)
        _print(doctor.report_checks(app, checks))
        _print(problems or ["All is well."])
    sys.exit(1 if problems else 0)


def _print(lines: t.Iterable[str]) -> None:
    for line in lines:
        click.echo(line)
