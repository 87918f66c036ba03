"""What code hosts and package indexes read: the citation, the templates of issues, and the pages' own additions."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import yaml
from pages import ROOT

PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
REQUIRED = {"cff-version", "message", "title", "authors"}
ALLOWED = {
    "abstract", "commit", "contact", "date-released", "doi", "identifiers", "keywords", "license", "license-url",
    "preferred-citation", "references", "repository", "repository-artifact", "repository-code", "type", "url", "version",
}  # fmt: skip
"""Keys of the Citation File Format 1.2.0 (its schema forbids others)."""
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.md"))


def cited() -> dict:
    """The citation, every scalar as text: a version is no number."""
    return yaml.load((ROOT / "CITATION.cff").read_text(encoding="utf-8"), Loader=yaml.BaseLoader)


def test_the_citation_has_the_keys_of_its_format() -> None:
    found = cited()
    assert found.keys() >= REQUIRED and found.keys() <= REQUIRED | ALLOWED
    assert found["cff-version"] == "1.2.0" and found["type"] in ("software", "dataset")
    assert re.fullmatch(r"[a-z-]+", found["references"][0]["type"]) and found["references"][0]["title"]


def test_every_author_is_a_person_or_an_entity() -> None:
    found = cited()
    for author in [*found["authors"], *found["references"][0]["authors"]]:
        assert author.keys() in (
            {"name"},
            {"family-names", "given-names"},
        )  # an entity has a name, a person two


def test_the_citation_is_of_this_version_and_licence() -> None:
    for key in ("version", "license"):
        assert re.search(rf'^{key} = "(.+)"$', PYPROJECT, re.M)[1] == cited()[key]  # type: ignore[index]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_has_a_name_what_it_is_for_and_questions(path: Path) -> None:
    _, head, body = path.read_text(encoding="utf-8").split("---\n", 2)
    said = yaml.safe_load(head)
    assert said.keys() == {"name", "about", "labels"} and all(said.values())
    assert body.count("**") >= 4 and body.count("```") % 2 == 0


def test_there_are_templates() -> None:
    assert [path.stem for path in TEMPLATES] == ["bug", "request"]


def test_short_code_stays_in_one_piece_on_the_pages() -> None:
    spec = importlib.util.spec_from_file_location("docs_pages", ROOT / "scripts" / "docs_pages.py")
    assert spec is not None and spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    assert hooks.on_page_content("<code>--method NAME</code>") == '<code class="short">--method NAME</code>'
    long = f"<code>{'x' * 60}</code>"
    assert hooks.on_page_content(long) == long
