"""Counts instructions, which repeat where times swing: ``python -m tests.benchmarks.instructions``.

Needs Debian's package ``valgrind``; ``--profile`` also needs ``gcc`` and Python's header files.
"""
