"""Suites that others wrote, run with the patches off, on, and, with a request context active, on and observing.

No difference is allowed.

``python -m tests.conformance`` prints the table for the interpreter that runs it; ``tox -m conformance`` does so for
every interpreter of the matrix, and fetches the suites that come as source distributions. ``--ecosystem`` runs those of
packages that stand in the same process as an app, each in a virtual environment that it makes.
"""
