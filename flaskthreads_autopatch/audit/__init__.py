"""The audit: what a program starts, from where, in which context, and what would change. Records, verdicts, reports."""
