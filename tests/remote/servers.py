"""Programs that are started for a test and ended with it, by their process id."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def program(command: list[object], log: Path, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """*command*, from the folder of the project. What it printed is shown if the test fails."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": paths, **environ}
    with log.open("wb") as out:
        process = subprocess.Popen([*map(str, command)], cwd=log.parent, env=env, stdout=out, stderr=out)
    try:
        yield process
    except BaseException:
        print(log.read_text(errors="replace"), file=sys.stderr)
        raise
    finally:
        process.terminate()
        try:
            process.wait(120)
        finally:
            process.kill()


def wait_until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    """Returns when the program takes connections. Raises when it has ended instead."""
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            raise RuntimeError(f"{process.args} has ended with {process.wait(0.05)}")


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Debian's ``redis-server`` on a port of its own, which keeps nothing. Its URL."""
    port = free_port()
    command: list[object] = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", folder]
    with program(command, folder / "redis") as server:
        wait_until_it_listens(server, port)
        yield f"redis://127.0.0.1:{port}/0"


# Debian's command of this name, which is on PATH, becomes another user, who may not write here.
RABBITMQ = "/usr/lib/rabbitmq/bin/rabbitmq-server"


@contextlib.contextmanager
def rabbitmq_server(folder: Path) -> Iterator[str]:
    """Debian's ``rabbitmq-server`` on ports of its own, with all that it writes in *folder*. Its URL."""
    registry, port, nodes = free_port(), free_port(), free_port()
    here = "127.0.0.1"
    environ = {
        "HOME": folder,  # for the cookie
        "ERL_EPMD_ADDRESS": here,
        "ERL_EPMD_PORT": registry,
        "RABBITMQ_NODENAME": f"tests-{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": here,
        "RABBITMQ_NODE_PORT": port,
        "RABBITMQ_DIST_PORT": nodes,
        "RABBITMQ_MNESIA_BASE": folder / "database",
        "RABBITMQ_LOG_BASE": folder / "logs",
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_CONFIG_FILE": folder / "none",
        "RABBITMQ_CONF_ENV_FILE": folder / "none",
        "RABBITMQ_ENABLED_PLUGINS_FILE": folder / "none",
    }
    # The server would start the registry of its nodes itself, and leave it running.
    with program(["epmd", "-port", registry, "-address", here], folder / "registry") as epmd:
        wait_until_it_listens(epmd, registry)
        with program(
            [RABBITMQ], folder / "rabbitmq", **{name: str(value) for name, value in environ.items()}
        ) as server:
            wait_until_it_listens(server, port)
            yield f"amqp://guest:guest@{here}:{port}//"


@contextlib.contextmanager
def wiretap(port: int) -> Iterator[tuple[int, bytearray]]:
    """A port that passes all on to *port*, and everything that callers have sent through it."""
    wire = bytearray()

    def pump(source: socket.socket, target: socket.socket, record: bytearray) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                record += data
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        with contextlib.ExitStack() as connections, contextlib.suppress(OSError):
            while True:
                caller = connections.enter_context(server.accept()[0])
                called = connections.enter_context(socket.create_connection(("127.0.0.1", port)))
                threading.Thread(target=pump, args=(caller, called, wire), daemon=True).start()
                threading.Thread(target=pump, args=(called, caller, bytearray()), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(server.getsockname()[1]), wire
        # Ends the accept() that the thread waits in.
        server.shutdown(socket.SHUT_RDWR)
        thread.join(30)
