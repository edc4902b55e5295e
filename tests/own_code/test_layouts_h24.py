"""H24: where the application's code and a third party's pool may lie, and that both are told apart there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest

from ..processes import DOCTOR, LAUNCHER, ROOT, run
from .layouts import (
    APP,
    DOES_NOT_INHERIT,
    INHERITS,
    POOL,
    PROBE,
    ask,
    copy_flask,
    install,
    write,
)

SHOP = APP + PROBE


def probing(module: str, app: str = "shop.create_app()") -> str:
    """What prints the answers of *module*, which has `PROBE`, for *app*."""
    return f"import json, shop, {module} as asked; print(json.dumps(asked.probe({app})))"


ASK_SHOP = probing("shop")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder ``site-packages`` in which the third party's pool is installed."""
    return install(tmp_path / "lib" / "site-packages", "thirdpool", POOL)


# The app


@pytest.mark.parametrize("switch", ["on", "off"])
def test_h24_checkout(tmp_path: Path, site: Path, switch: str) -> None:
    checkout = write(tmp_path / "checkout", {"shop.py": SHOP})
    seen = ask(ASK_SHOP, checkout, site, FLASKTHREADS_AUTOPATCH="" if switch == "on" else 0)
    assert seen == (INHERITS if switch == "on" else DOES_NOT_INHERIT)


def test_h24_wheel(site: Path) -> None:
    install(site, "shop", {"shop/__init__.py": SHOP})
    assert ask(ASK_SHOP, site) == INHERITS


def test_h24_wheel_with_submodules_and_another_package(site: Path) -> None:
    files = {"shop/__init__.py": APP, "shop/deep/__init__.py": "", "shop/deep/er.py": PROBE, "shop_jobs.py": PROBE}
    install(site, "shop", files)
    for module in ("shop.deep.er", "shop_jobs"):
        assert ask(probing(module), site) == INHERITS


@pytest.mark.parametrize("with_top_level", [False, True])
def test_h24_metadata_with_and_without_top_level_txt(site: Path, with_top_level: bool) -> None:
    install(site, "shop", {"shop/__init__.py": APP, "shop_jobs.py": PROBE})
    if with_top_level:
        (site / "shop-1.0.dist-info" / "top_level.txt").write_text("shop\nshop_jobs\n")
        (site / "shop-1.0.dist-info" / "RECORD").write_text("")
    assert ask(probing("shop_jobs"), site) == INHERITS


def test_h24_namespace_packages(site: Path) -> None:
    install(site, "acme_web", {"acme/web.py": APP})
    install(site, "acme_common", {"acme/common/jobs.py": PROBE, "acme_tools.py": PROBE})
    for module in ("acme.common.jobs", "acme_tools"):
        code = f"import json, acme.web, {module} as jobs; print(json.dumps(jobs.probe(acme.web.create_app())))"
        assert ask(code, site) == INHERITS


def test_h24_an_app_whose_name_is_no_module(site: Path) -> None:
    install(site, "shop", {"shop/__init__.py": SHOP})
    assert ask(probing("shop", "shop.create_app('My Shop')"), site) == INHERITS


def test_h24_copied_into_site_packages_without_metadata(site: Path) -> None:
    write(site, {"shop/__init__.py": SHOP})
    assert ask(ASK_SHOP, site) == INHERITS


def test_h24_a_checkout_below_a_folder_called_site_packages(tmp_path: Path, site: Path) -> None:
    checkout = write(tmp_path / "site-packages" / "checkout", {"shop.py": APP, "jobs.py": PROBE})
    assert ask(probing("jobs"), checkout, site) == INHERITS


def test_h24_editable(tmp_path: Path, site: Path) -> None:
    """As setuptools does it: an .egg-info in the checkout, and a file in site-packages that adds the checkout."""
    checkout = write(tmp_path / "src", {"shop/__init__.py": APP, "jobs.py": PROBE})
    write(checkout, {"shop.egg-info/PKG-INFO": "Name: shop\n", "shop.egg-info/top_level.txt": "shop\njobs\n"})
    install(site, "shop", {"__editable__.shop-1.0.pth": f"{checkout}\n"})
    code = f"import site; site.addsitedir({str(site)!r}); " + probing("jobs")
    assert ask(code) == INHERITS


def test_h24_an_app_of_the_standard_librarys_name(tmp_path: Path, site: Path) -> None:
    checkout = write(tmp_path / "checkout", {"shop.py": APP, "sched.py": PROBE})
    assert ask(probing("sched"), checkout, site) == INHERITS


MAIN = "\nimport json\nprint(json.dumps(probe(create_app())))\n"


def test_h24_run_by_dash_m(site: Path) -> None:
    install(site, "shop", {"shop/__init__.py": "", "shop/__main__.py": SHOP})
    with (site / "shop" / "__main__.py").open("a") as file:
        file.write(MAIN)
    assert ask("", site, command=(sys.executable, "-m", "shop")) == INHERITS


def test_h24_script_and_dash_c_and_stdin(tmp_path: Path, site: Path) -> None:
    write(tmp_path, {"main.py": SHOP})
    code = (tmp_path / "main.py").read_text() + MAIN
    (tmp_path / "main.py").write_text(code)
    assert ask("", site, command=(sys.executable, tmp_path / "main.py")) == INHERITS
    assert ask("", site, command=(sys.executable, "-c", code)) == INHERITS
    done = subprocess.run(
        [sys.executable, "-"], input=code, env=os.environ | {"PYTHONPATH": str(site)}, capture_output=True, text=True
    )
    assert json.loads(done.stdout) == INHERITS


def test_h24_user_site(tmp_path: Path) -> None:
    # A virtual environment has none, so this is the interpreter that it was made with.
    python = getattr(sys, "_base_executable", sys.executable)
    found = run(python, "-c", "import site; print(site.getusersitepackages())", PYTHONUSERBASE=tmp_path)
    user_site = Path(found.stdout.strip())
    install(user_site, "thirdpool", POOL)
    install(user_site, "shop", {"shop/__init__.py": SHOP})
    path = [ROOT, *(Path(entry) for entry in sys.path if entry.endswith("site-packages"))]
    assert ask("", *path, command=(python, "-c", ASK_SHOP), PYTHONUSERBASE=tmp_path) == INHERITS


def test_h24_shiv(tmp_path: Path, site: Path) -> None:
    """shiv unpacks the application, and all it needs, into a folder ``site-packages`` of its own."""
    root = copy_flask(tmp_path / ".shiv" / "shop_0123abcd" / "site-packages")
    install(root, "thirdpool", POOL)
    install(root, "shop", {"shop/__init__.py": SHOP})
    assert ask(ASK_SHOP, root) == INHERITS


def test_h24_pex(tmp_path: Path) -> None:
    """pex has a folder for the application, and below it one for each wheel."""
    pex = write(tmp_path / "app.pex", {"shop.py": APP, "jobs.py": PROBE})
    pool = install(pex / ".deps" / "thirdpool-1.0-py3-none-any.whl", "thirdpool", POOL)
    assert ask(probing("jobs"), pex, pool) == INHERITS


def test_h24_zipapp(tmp_path: Path, site: Path) -> None:
    source = write(tmp_path / "source", {"__main__.py": SHOP, "jobs.py": PROBE})
    with (source / "__main__.py").open("a") as file:
        file.write("\nimport json, jobs\napp = create_app()\nprint(json.dumps([probe(app), jobs.probe(app)]))\n")
    zipapp.create_archive(source, tmp_path / "app.pyz")
    assert ask("", site, command=(sys.executable, tmp_path / "app.pyz")) == [INHERITS, INHERITS]


def test_h24_zipapp_with_all_it_needs_inside(tmp_path: Path) -> None:
    """As ``pip install --target source`` and then ``zipapp`` make it: nothing but its name tells the app."""
    source = copy_flask(tmp_path / "source")
    install(source, "thirdpool", POOL)
    write(source, {"shop/__init__.py": SHOP})
    archive = shutil.make_archive(str(tmp_path / "app"), "zip", source)
    assert ask(ASK_SHOP, Path(archive)) == INHERITS


def test_h24_target_folder_flat(tmp_path: Path) -> None:
    """As on AWS Lambda: the app, Flask and the pool lie in one folder."""
    task = copy_flask(tmp_path / "task")
    install(task, "thirdpool", POOL)
    write(task, {"shop.py": SHOP})
    assert ask(ASK_SHOP, task) == INHERITS


def test_h24_target_folder_beside_the_app(tmp_path: Path) -> None:
    app = write(tmp_path / "app", {"shop.py": APP, "jobs.py": PROBE})
    vendor = install(app / "vendor", "thirdpool", POOL)
    assert ask(probing("jobs"), app, vendor) == INHERITS


@pytest.mark.parametrize("folder", ["_vendor", "_vendored", "third_party"])
def test_h24_a_pool_vendored_by_the_app(tmp_path: Path, site: Path, folder: str) -> None:
    pool = {f"shop/{folder}/{name}": text for name, text in POOL.items()}
    own = {"shop/__init__.py": SHOP.replace("import thirdpool", f"from shop.{folder} import thirdpool")}
    marker = {f"shop/{folder}/__init__.py": ""}
    assert ask(ASK_SHOP, write(tmp_path / "checkout", own | pool | marker)) == INHERITS
    assert ask(ASK_SHOP, install(site, "shop", own | pool | marker)) == INHERITS


def test_h24_vendor_is_a_word_of_business(tmp_path: Path, site: Path) -> None:
    checkout = write(tmp_path / "checkout", {"shop.py": APP, "vendor/__init__.py": "", "vendor/jobs.py": PROBE})
    code = probing("vendor.jobs")
    assert ask(code, checkout, site) == INHERITS


# Another distribution


@pytest.mark.parametrize("own", [["acme_common"], ["acme_*"], ["*"]])
def test_h24_a_companys_second_distribution(site: Path, own: list[str]) -> None:
    install(site, "shop", {"shop/__init__.py": APP})
    install(site, "acme_common", {"acme_common/__init__.py": PROBE})
    assert ask(probing("acme_common"), site) == DOES_NOT_INHERIT
    seen = ask(probing("acme_common", f"shop.create_app(own={own})"), site)
    assert seen == (INHERITS if own != ["*"] else dict.fromkeys(INHERITS, "alice") | {"their pool, outside": "alice"})
    assert ask(probing("acme_common"), site, FLASKTHREADS_AUTOPATCH_OWN=",".join(own)) == seen


VIEWS = """
    from flask import Blueprint

    blueprint = Blueprint("views", __name__)

    @blueprint.get("/")
    def index():
        return "ok"
    """


CREATE_WITH_VIEWS = """
    import acme_views

    def create():
        app = create_app()
        app.register_blueprint(acme_views.blueprint)
        return app
    """


def test_h24_doctor_names_the_distributions_that_hold_views(site: Path) -> None:
    install(site, "acme_views", {"acme_views/__init__.py": VIEWS})
    app = APP + CREATE_WITH_VIEWS
    install(site, "shop", {"shop/__init__.py": app})
    done = run(*DOCTOR, "--app", "shop:create", PYTHONPATH=site)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "acme_views has views of 'shop' and is not own code" in done.stdout
    assert "own=['acme_views']" in done.stdout
    assert "Own code, because it belongs to an app: shop" in done.stdout
    assert json.loads(run(*DOCTOR, "--app", "shop:create", "--json", PYTHONPATH=site).stdout)[
        "views_outside_own_code"
    ] == {"acme_views": "acme_views"}
    done = run(*DOCTOR, "--app", "shop:create", PYTHONPATH=site, FLASKTHREADS_AUTOPATCH_OWN="acme_views")
    assert "has views" not in done.stdout


# Switched on from outside


def test_h24_enable_adopts_the_app_that_it_meets(site: Path) -> None:
    plain = "\n    from flask import Flask\n\n    def create_app():\n        return Flask(__name__)\n"
    install(site, "shop", {"shop/__init__.py": plain + PROBE, "shop_jobs.py": PROBE})
    code = "import json, shop, shop_jobs; app = shop.create_app(); seen = [shop.probe(app), shop_jobs.probe(app)]"
    code += "; print(json.dumps(seen))"
    assert ask("", site, command=(*LAUNCHER, sys.executable, "-c", code)) == [INHERITS, INHERITS]


def test_h24_flask_run_and_gunicorn(site: Path) -> None:
    """The frames of a command or a server are below those of the app, and are no starter."""
    install(site, "shop", {"shop/__init__.py": SHOP})
    script = "import json, shop, click\n@click.command('ask')\ndef ask(): print(json.dumps(shop.probe(app)))\n"
    write(site, {"wsgi.py": script + "app = shop.create_app()\napp.cli.add_command(ask)\n"})
    assert ask("", site, command=(sys.executable, "-m", "flask", "--app", "wsgi", "ask")) == INHERITS
