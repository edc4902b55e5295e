"""The page as HTML: complete, escaped, and allowed to fetch nothing."""

from __future__ import annotations

import base64
import hashlib
import re
import zipfile
from html.parser import HTMLParser
from pathlib import Path

from flit_core.wheel import make_wheel_in

from flaskthreads_autopatch.audit.page import COLUMNS, page

from ..pages import ROOT
from .records import NO_CONTEXT, audit, record

EVIL = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;"


class Parts(HTMLParser):
    """The elements of a page, with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_it_has_all_that_the_table_has() -> None:
    found = page(audit(record(failed=5, longest=12.0, outlived=1, not_inherited={"g.db": "excluded by 'db'"})), None)
    text = Parts(found).text
    for expected in (
        "shop/views.py:12 in checkout",
        "shop.mail:send",
        "endpoint checkout",
        "fixed by the library",
        "all 5 runs failed for want of a context",
        "12 s",
        "g.user",
        "shop.models:User",
        "not g.db",
        "excluded by 'db'",
        "observed only: nothing was inherited",
        "fixed by the library (1)",
    ):
        assert expected in text
    assert len(Parts(found).all("th")) == len(COLUMNS) == len(Parts(found).all("td"))


def test_nothing_of_the_program_becomes_part_of_the_page() -> None:
    evil = record(EVIL, place=EVIL, app=EVIL, endpoint=EVIL, inherited={EVIL: EVIL}, not_inherited={EVIL: EVIL})
    found = audit(evil, record("f", reason=EVIL))._replace(command=[EVIL], version=EVIL)
    parts = Parts(page(found, audit(record(EVIL))))
    assert len(parts.all("script")) == 1
    assert parts.all("img") == []
    assert parts.text.count(EVIL) >= 10
    allowed = {
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "html",
        "meta",
        "button",
        "input",
        "label",
        "output",
        "form",
    }
    assert {name for name, attributes in parts.elements if attributes} <= allowed | {"span", "p"}
    # The policy would not allow them, but none is written in the first place.
    assert [each for _, each in parts.elements if any(name.startswith("on") or name == "style" for name in each)] == []


def test_nothing_is_fetched_and_only_its_own_script_runs() -> None:
    found = page(audit(record()), None)
    assert re.findall(r"""(?:src|href)=|url\(|@import|https?://""", found) == []
    [policy] = [each["content"] for each in Parts(found).all("meta") if each.get("http-equiv")]
    assert policy.startswith("default-src 'none'; ")
    for tag in ("style", "script"):
        [text] = re.findall(f"<{tag}>(.*?)</{tag}>", found, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_beside_an_earlier_audit() -> None:
    earlier = audit(record(failed=5), record("shop.jobs:poll", NO_CONTEXT))
    text = Parts(page(audit(record(), is_on=True), earlier)).text
    assert "Compared with an earlier audit (observe)" in text
    assert "Since the earlier audit: failed 5 -> 0." in text
    assert "shop.jobs:poll" in text.partition("Gone since the earlier audit")[2]


def test_a_wheel_has_the_files_that_it_is_made_of(tmp_path: Path) -> None:
    wheel = make_wheel_in(ROOT / "pyproject.toml", tmp_path).file
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"flaskthreads_autopatch/audit/page.{end}" for end in ("html", "css", "js")} <= set(names)


def test_an_empty_page() -> None:
    parts = Parts(page(audit(), None))
    assert "Nothing was started." in parts.text
    assert not {"script", "table", "form"} & {tag for tag, _ in parts.elements}
