"""The house: imports point downwards only, files are short, and only one folder knows Flask's private names."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

import flaskthreads_autopatch

PACKAGE = Path(flaskthreads_autopatch.__file__).parent

LAYERS = (
    "environment names by_identity suppression catalogue distributions",
    "log lent_request",
    "flask_context clean_context apps",
    "starter own_code who_inherits place",
    "policy app_policies process_status",
    "entries snapshot g_class",
    "visibility",
    "audit",
    "capture observation replay provide",
    "wrapped",
    "patching",
    "switch",
    "explicit",
    "wire signature portable extraction carrier remote",
    "integrations",
    "doctor unused_options activation launch audit_command cli __main__ __init__ startup",
)
"""The modules and folders of the package from the bottom to the top: each imports only what is named before it.

Modules of one folder import each other freely, but not in a circle. A new module is placed above all that it imports.
"""

PLACES = " ".join(LAYERS).split()

FLASKS_PRIVATE_NAMES = (
    "_cv_app",
    "_cv_request",
    "_cv_token",
    "_push_count",
    "._request",
    "._session",
    "_get_session",
    "_AppCtxGlobals",
    "_got_first_request",
)

LONGEST = 300
"""The number of lines that a file may have."""

Graph = dict[str, set[str]]
"""For each module, as ``folder.module``, the modules of the package that it imports."""


def modules_of(package: Path) -> dict[str, Path]:
    """Return the file of each module. A package goes by the name of its folder, the outermost one is ``__init__``."""
    files = {}
    for file in sorted(package.rglob("*.py")):
        *folders, name = file.relative_to(package).with_suffix("").parts
        files[".".join(folders if folders and name == "__init__" else [*folders, name])] = file
    return files


def graph_of(package: Path) -> Graph:
    """Return what each module imports, wherever the import stands.

    Imports for types count, under ``TYPE_CHECKING``, and so do those in functions: the lazy imports of the faces (cli,
    activation, the start-up file and ``__init__``, which has its for type checkers) point downwards as the others do.
    Only ``import_module()`` is not seen here.
    """
    files = modules_of(package)
    graph: Graph = {}
    for name, file in files.items():
        here = file.relative_to(package.parent).parent.parts
        graph[name] = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                start = ".".join((*here[: len(here) + 1 - node.level], *filter(None, [node.module])))
                start = start if node.level else str(node.module)
                found = [f"{start}.{alias.name}" for alias in node.names]
            else:
                continue
            for path in found:
                outermost, *inside = path.split(".")
                if outermost == package.name:
                    # The last part may be a module, or a name in the module before it.
                    paths = [".".join(inside), ".".join(inside[:-1])]
                    graph[name].add(next((path for path in paths if path in files), "__init__"))
    return graph


def circle_in(graph: Graph) -> list[str] | None:
    """Return a circle of modules that import each other, or None."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return None


def imports_upwards(graph: Graph, places: list[str]) -> list[str]:
    """Return each import that points upwards in *places*, as a sentence."""
    place = {name: index for index, name in enumerate(places)}
    return [
        f"{importer} imports {imported}"
        for importer, its_imports in graph.items()
        for imported in sorted(its_imports)
        if (above := importer.partition(".")[0]) != (below := imported.partition(".")[0])
        and place[above] < place[below]
    ]


def test_every_module_has_its_place_in_the_layers() -> None:
    assert len(PLACES) == len(set(PLACES))
    assert {name.partition(".")[0] for name in modules_of(PACKAGE)} == set(PLACES)


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle_in(graph_of(PACKAGE)) is None


def test_no_import_points_upwards() -> None:
    assert imports_upwards(graph_of(PACKAGE), PLACES) == []


@pytest.mark.parametrize(
    "above",
    [
        "from .above import Name",
        "from . import above",
        "import package.above",
        "from package.above import Name",
        "from .folder import above",
        "from .folder.above import Name",
        "import typing as t\nif t.TYPE_CHECKING:\n    from .above import Name",
        "def later():\n    from .above import Name",
        "from . import __version__",
    ],
)
def test_an_import_upwards_is_found_wherever_it_stands(tmp_path: Path, above: str) -> None:
    package = tmp_path / "package"
    (package / "folder").mkdir(parents=True)
    (package / "__init__.py").write_text("TYPE_CHECKING = False\nif TYPE_CHECKING:\n    from .below import Name")
    (package / "below.py").write_text(above)
    (package / "above.py").write_text("from . import below")
    (package / "folder" / "__init__.py").write_text("")
    (package / "folder" / "above.py").write_text("from .. import below\nfrom ..below import Name")
    graph = graph_of(package)
    (imported,) = graph["below"]
    assert set(circle_in(graph) or ()) == {"below", imported}
    assert imports_upwards(graph, ["below", "above", "folder", "__init__"]) == [f"below imports {imported}"]


def test_every_file_can_be_read_in_one_sitting() -> None:
    lengths = {name: len(file.read_text().splitlines()) for name, file in modules_of(PACKAGE).items()}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_nothing_of_flasks_private_names_outside_flask_context() -> None:
    files = [path for path in PACKAGE.rglob("*.py") if path.parent.name != "flask_context"]
    assert len(files) >= 8
    assert [path.name for path in files if any(name in path.read_text() for name in FLASKS_PRIVATE_NAMES)] == []
