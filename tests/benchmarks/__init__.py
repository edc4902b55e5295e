"""What inheritance costs, beside what people would use instead: ``python -m tests.benchmarks [--quick]``.

Needs the group ``benchmarks``. Ratios within one run are the result; times hold for one machine and one moment. So the
columns of a scenario are measured in turns (a, b, c, a, b, c, ...), in several processes, and compared round by round:
what disturbs the machine disturbs all of them.
"""
