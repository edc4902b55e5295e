"""Configuration of Sphinx: ``sphinx-build -W docs docs/_build/html``."""

import sys
from pathlib import Path

import flaskthreads_autopatch

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "flaskthreads-autopatch"
release = version = flaskthreads_autopatch.__version__

extensions = ["catalogue_table", "narrow_screens", "myst_parser", "pallets_sphinx_themes", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
myst_enable_extensions = ["attrs_block"]
default_role = "py:obj"  # docstrings write `name`
autodoc_member_order = "bysource"
add_module_names = False

html_theme = "flask"
# The pages fetch nothing from other hosts: the banner would ask the package index, and the fourth sidebar shows ads.
version_banner = False
html_sidebars = {"**": ["localtoc.html", "relations.html", "searchbox.html"]}
html_title = f"{project} {version}"
html_copy_source = html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["pages.css"]
