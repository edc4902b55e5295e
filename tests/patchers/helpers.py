"""The types of the fixtures."""

from __future__ import annotations

import typing as t
from collections.abc import Callable

Ask = Callable[[dict[str, t.Any]], t.Any]
Steps = tuple[tuple[str, str], ...]
RunCase = Callable[[str, Steps], dict[str, t.Any]]
