"""Running replays made visible: the registry, their parents, overdue warnings, signals, and the dump."""
