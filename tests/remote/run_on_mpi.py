"""The contract on mpi4py.futures, as a program of its own: ``mpiexec -n 3 python -m mpi4py.futures -m ...``."""

from __future__ import annotations

from . import shop
from .test_engines import assert_contract, assert_none_mixed_up

if __name__ == "__main__":
    from mpi4py.futures import MPIPoolExecutor

    app = shop.create_app(install=False)
    app.teardown_appcontext_funcs.clear()
    with MPIPoolExecutor() as engine:
        assert_contract(app, engine)
        assert_none_mixed_up(app, engine)
    print("all as it should be")
