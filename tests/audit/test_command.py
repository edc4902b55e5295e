"""``flaskthreads-autopatch audit`` around real commands: its table, its files, its exit status, and signals."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from click.testing import CliRunner

from flaskthreads_autopatch.audit_command import BROKEN_PROMISE
from flaskthreads_autopatch.audit_command import audit as audit_command

from ..helpers import LIMIT
from ..processes import environment, python, run, script
from .records import audit, record

AUDIT = (script("flaskthreads-autopatch"), "audit")

FAILING = """
import sys
from concurrent.futures import ThreadPoolExecutor
from flask import Flask, g

app, pool = Flask("shop"), ThreadPoolExecutor(1)

def name_user():
    return g.user

with app.app_context():
    g.user = "alice"
    failed = pool.submit(name_user).exception() is not None
print("failed" if failed else "alice")
sys.exit(4)
"""
"""One task that fails without a context, and an exit status of its own."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Path]:
    """A folder for temporary files, which is empty again at the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def audited(*options: object, code: str = FAILING, **variables: object) -> subprocess.CompletedProcess[str]:
    return run(*AUDIT, *map(str, options), "--", sys.executable, "-c", code, **variables)


def test_the_table_is_on_stderr_and_all_else_is_the_commands() -> None:
    done = audited()
    assert (done.stdout, done.returncode) == ("failed\n", 4)
    assert "=> fixed by the library: the run failed for want of a context." in done.stderr
    assert "observed only: nothing was inherited" in " ".join(done.stderr.split())


def test_with_on_it_inherits() -> None:
    done = audited("--on")
    assert (done.stdout, done.returncode) == ("alice\n", 4)
    assert "=> inherits: current_app and g.user." in done.stderr
    assert "with inheritance on" in done.stderr


def test_it_runs_as_a_module_too() -> None:
    done = run(sys.executable, "-m", "flaskthreads_autopatch", "audit", "true")
    assert done.returncode == 0
    assert "flaskthreads-autopatch audit of: true" in done.stderr


def test_the_command_has_stdin_and_its_own_options() -> None:
    code = "import sys; print(sys.stdin.read(), sys.argv[1:])"
    done = subprocess.run(
        [*AUDIT, sys.executable, "-c", code, "--json", "x", "--", "-h"],
        env=environment(),
        input="typed",
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.stdout == "typed ['--json', 'x', '--', '-h']\n"


def test_json(tmp_path: Path) -> None:
    file = tmp_path / "audit.json"
    audited("--json", file)
    data = json.loads(file.read_text())
    assert (data["mode"], data["command"][0], data["processes"]) == ("observe", sys.executable, 1)
    [place] = [place for place in data["places"] if place["kind"] == "task"]
    assert place["callable"] == "__main__:name_user"
    assert (place["app"], place["starts"], place["failed"]) == ("shop", 1, 1)
    assert place["verdict"] == "fixed by the library"
    assert place["inherited"] == {"g.user": "builtins:str"}
    assert data["version"] in run(*AUDIT[:1], "--version").stdout


def test_html(tmp_path: Path) -> None:
    file = tmp_path / "audit.html"
    audited("--html", file)
    assert "__main__:<wbr>name_user" in file.read_text()


def test_compared_with_an_earlier_audit(tmp_path: Path) -> None:
    file = tmp_path / "audit.json"
    audited("--json", file)
    # The same file may be replaced: it is read before.
    done = audited("--on", "--compare", file, "--json", file)
    assert done.returncode == 4
    assert "since the earlier audit (observe): failed 1 -> 0" in done.stderr
    assert json.loads(file.read_text())["mode"] == "on"


@pytest.mark.parametrize("variables", [{}, {"FLASKTHREADS_AUTOPATCH": "0"}])
def test_a_comparison_with_nothing_is_no_success(tmp_path: Path, variables: dict[str, str]) -> None:
    file = tmp_path / "audit.json"
    audited("--json", file)
    done = run(*AUDIT, "--on", "--compare", file, "--", "true", **variables)
    assert done.returncode == BROKEN_PROMISE
    assert "nothing" in done.stderr


def test_the_files_are_written_even_if_nobody_reads_the_table(tmp_path: Path) -> None:
    file = tmp_path / "audit.json"
    # The pipe is closed before the command ends.
    run("sh", "-c", '"$0" audit --json "$1" -- sleep 0.5 2>&1 >/dev/null | true', *AUDIT[:1], file)
    assert json.loads(file.read_text())["places"] == []


def test_a_promise_that_was_not_kept_is_an_exit_status(tmp_path: Path) -> None:
    file = tmp_path / "audit.json"
    audited("--json", file)
    data = json.loads(file.read_text())
    [place] = [place for place in data["places"] if place["kind"] == "task"]
    place["reason"] = "ignored by 'x'"
    file.write_text(json.dumps(data))
    done = audited("--on", "--compare", file)
    assert done.returncode == BROKEN_PROMISE
    assert "name_user, started at" in done.stderr
    assert "it was not to inherit, and inherits." in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--json", "no/folder/x"], "'no/folder/x' cannot be written: No such file or directory."),
        (["--html", "."], "'.' cannot be written: Is a directory."),
        (["--compare", "missing"], "'missing' cannot be read: No such file or directory."),
        (["--compare", "text"], "'text' is not an audit."),
        (["--compare", "list"], "'list' is not an audit."),
        (["--compare", "other"], "'other' is not an audit."),
        (["--compare", "wrong"], "'wrong' is not an audit."),
        (["--json", "x", "--html", "x"], "--json and --html name the same file"),
        (["--jsn", "x"], "No such option"),
    ],
)
def test_an_option_that_is_wrong_is_reported_before_the_command_runs(
    tmp_path: Path, options: list[str], message: str
) -> None:
    (tmp_path / "text").write_text("no json")
    (tmp_path / "list").write_text("[1]")
    (tmp_path / "wrong").write_text(json.dumps(audit().as_data() | {"places": [record(failed="many").as_data()]}))
    (tmp_path / "other").write_text('{"places": [{"place": "x"}]}')
    done = run(*AUDIT, *options, "--", "sh", "-c", "echo started", cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("", 2)
    assert message in done.stderr
    assert not (tmp_path / "x").exists()


def test_without_a_temporary_folder_nothing_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    result = CliRunner().invoke(audit_command, ["--", "touch", str(tmp_path / "started")])
    assert result.exit_code == 1
    assert "No temporary folder can be made: No such file or directory. Set TMPDIR to one." in result.output
    assert not (tmp_path / "started").exists()


def test_a_file_that_is_there_is_kept_until_the_end(tmp_path: Path) -> None:
    file = tmp_path / "audit.json"
    file.write_text("before")
    done = run(*AUDIT, "--json", file, "--", "cat", file)
    assert done.stdout == "before"
    assert json.loads(file.read_text())["places"] == []


def test_a_file_that_cannot_be_written_at_the_end(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = run(*AUDIT, "--json", gone / "audit.json", "--", "sh", "-c", f"rmdir {gone}; exit 5")
    assert done.returncode == 5
    assert f"'{gone / 'audit.json'}' cannot be written: No such file or directory." in done.stderr


@pytest.mark.parametrize("word", ["0", "off"])
def test_the_kill_switch_wins_and_the_command_runs(tmp_path: Path, word: str) -> None:
    done = audited("--json", tmp_path / "x", "--on", FLASKTHREADS_AUTOPATCH=word)
    assert (done.stdout, done.returncode) == ("failed\n", 4)
    assert done.stderr == (
        f"flaskthreads-autopatch: nothing is recorded and no file is written, because FLASKTHREADS_AUTOPATCH={word} is"
        " set in the environment. Unset it.\n"
    )
    assert not (tmp_path / "x").exists()


def test_a_variable_that_enables_the_library_does_not_win() -> None:
    assert audited(FLASKTHREADS_AUTOPATCH="1").stdout == "failed\n"


def test_the_launcher_and_a_variable_that_enables_the_library_are_observed() -> None:
    command = [*AUDIT[:1], "run", sys.executable, "-c", FAILING]
    done = run(*AUDIT, "--", *command)
    assert done.stdout == "failed\n"
    assert "=> fixed by the library" in done.stderr
    assert run(*AUDIT, "--on", "--", *command, FLASKTHREADS_AUTOPATCH="observe").stdout == "alice\n"


def test_a_command_that_is_no_text(tmp_path: Path) -> None:
    name = b"\xff\n".decode(errors="surrogateescape")
    done = run(*AUDIT, "--html", tmp_path / "x.html", "--json", tmp_path / "x.json", "--", "true", name)
    assert done.returncode == 0
    assert r"""audit of: "true '\udcff\n'" (observed""" in done.stderr
    assert json.loads((tmp_path / "x.json").read_text())["command"] == ["true", name]


@pytest.mark.parametrize("command", [["true"], [sys.executable, "-I", "-c", FAILING]])
def test_a_command_that_imports_no_flask_is_told_so(command: list[str]) -> None:
    done = run(*AUDIT, "--", *command)
    assert "no process of the command has imported Flask while it was recorded. Check that" in done.stderr


def test_a_command_that_starts_nothing_is_told_so() -> None:
    done = audited(code="import flask")
    assert "nothing was started in 1 process. Have the command do what your users do." in done.stderr


def test_a_command_that_is_not_found() -> None:
    done = run(*AUDIT, "--", "no-such-command")
    assert (done.stdout, done.returncode) == ("", 127)
    assert done.stderr == "flaskthreads-autopatch: cannot run 'no-such-command': No such file or directory.\n"


def test_a_command_that_cannot_be_run(tmp_path: Path) -> None:
    assert run(*AUDIT, "--", tmp_path).returncode == 126


def test_records_that_cannot_be_read_leave_the_status(folder: Path) -> None:
    write = "open(os.environ['FLASKTHREADS_AUTOPATCH_AUDIT'] + '/1-x.texts', 'w').write('{\\n')"
    damage = f"import os, sys; {write}; sys.exit(6)"
    done = audited(code=damage)
    assert done.returncode == 6
    assert "what was recorded cannot be read: " in done.stderr
    assert "Traceback" not in done.stderr


WAITING = f"""
import signal, sys, time
{FAILING.replace("sys.exit(4)", "")}
HANDLER
print("up", flush=True)
while True:
    time.sleep(60)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT"])
def test_a_signal_reaches_the_command_and_the_table_is_printed(name: str) -> None:
    number = getattr(signal, name)
    # What has been started in the background of a shell has SIGINT ignored, and so have its children.
    code = WAITING.replace("HANDLER", f"signal.signal({int(number)}, signal.SIG_DFL)")
    command = [*AUDIT, "--", sys.executable, "-c", code]
    before = signal.signal(number, signal.SIG_DFL)
    try:
        # Without a terminal, Ctrl-C cannot have reached the command.
        with subprocess.Popen(
            command,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            assert [process.stdout.readline() for _ in range(2)] == ["failed\n", "up\n"]
            process.send_signal(number)
            _, errors = process.communicate(timeout=LIMIT)
    finally:
        signal.signal(number, before)
    assert process.returncode == 128 + number
    assert "=> fixed by the library" in errors


def test_a_command_that_handles_a_signal_has_its_own_status() -> None:
    code = WAITING.replace("HANDLER", "signal.signal(signal.SIGTERM, lambda *args: sys.exit(9))")
    with subprocess.Popen(
        [*AUDIT, "--", sys.executable, "-c", code], env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert [process.stdout.readline() for _ in range(2)] == ["failed\n", "up\n"]
        process.terminate()
        assert process.wait(LIMIT) == 9


def test_a_signal_that_is_ignored_is_ignored_in_the_command() -> None:
    code = "import signal; print(*[signal.getsignal(n) == signal.SIG_IGN for n in (signal.SIGHUP, signal.SIGTERM)])"
    ignoring = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh"]
    done = run(*ignoring, *AUDIT, "--", sys.executable, "-c", code)
    assert done.stdout == "True False\n"


def test_a_command_that_is_killed_is_in_the_table() -> None:
    done = audited(code=FAILING.replace("sys.exit(4)", "import os; os.kill(os.getpid(), 9)"))
    assert done.returncode == 128 + 9
    assert "=> fixed by the library" in done.stderr


def test_control_c_in_a_terminal_reaches_the_command_once() -> None:
    code = WAITING.replace(
        "HANDLER",
        "seen = []\n"
        "def note(*args):\n"
        "    seen.append(1); print('seen', len(seen), flush=True)\n"
        "signal.signal(signal.SIGINT, note)\n"
        "signal.signal(signal.SIGTERM, lambda *args: sys.exit(len(seen)))",
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(AUDIT[0], [*AUDIT, "--", sys.executable, "-c", code], environment())
    with open(terminal, "rb", buffering=0) as output:
        lines = _lines(output)
        assert _until(lines, "up")
        os.write(terminal, b"\x03")
        assert _until(lines, "seen 1")
        os.kill(pid, signal.SIGTERM)
        rest = "".join(lines)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    assert "=> fixed by the library" in rest


def _lines(output: t.BinaryIO) -> t.Iterator[str]:
    """The lines that are written to a terminal, to its end."""
    text = b""
    while True:
        try:
            more = output.read(4096)
        except OSError:  # Linux's way to say that the other side is closed.
            more = b""
        text += more
        *whole, text = text.split(b"\n")
        yield from (line.decode() for line in whole)
        if not more:
            yield text.decode()
            return


def _until(lines: t.Iterator[str], what: str) -> bool:
    return any(what in line for line in lines)


def test_the_launching_process_imports_neither_flask_nor_wrapt(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['audit', 'audit', '--html', sys.argv[1], 'true']\n"
        "from flaskthreads_autopatch.cli import main\n"
        "try:\n    main()\nfinally:\n    print(sorted({'flask', 'wrapt'} & sys.modules.keys()))"
    )
    done = run(sys.executable, "-c", code, tmp_path / "x.html")
    assert done.stdout == "[]\n"
    assert python("import flask, wrapt").returncode == 0
