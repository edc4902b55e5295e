"""The interpreters of Python 3.14, which share a process and nothing else: each loads the app."""

from concurrent.futures import InterpreterPoolExecutor

import shop

from flaskthreads_autopatch import RemoteAppContextExecutor


def greet_all(names):
    """Greet each of *names* in another interpreter, with the context that is active here."""
    with InterpreterPoolExecutor(2) as interpreters:
        pool = RemoteAppContextExecutor(interpreters, app="shop:create_app", g=("user_id",))
        return list(pool.map(shop.greet, names))
