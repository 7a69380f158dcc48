"""The pages of docs: each is in the index, its links lead somewhere, and settings and commands are complete."""

import re
from pathlib import Path

import pytest
import typer

from product_gateway.cli.main import app
from product_gateway.client.session import ExitStatus
from product_gateway.settings import ClientSettings, Settings, environment_name
from tests.support import markdown
from tests.support.markdown import TOP

DOCS = TOP / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *TOP.glob("*.md")])
GLOSSARY = (DOCS / "glossary.md").read_text()
TERMS = (
    "merchant",
    "product-service",
    "operator",
    "client",
    "entity-type",
    "sync",
    "catalog",
    "byop",
    "cursor",
    "lease",
)
COMMANDS = (DOCS / "commands.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    """To a file of the project, and to a heading in it."""
    assert list(markdown.broken_links(page)) == []


def test_the_index_names_every_page() -> None:
    """A page that is not in the index is not found."""
    index = DOCS / "README.md"
    named = {(DOCS / link.partition("#")[0]).resolve() for link in markdown.links(index.read_text())}
    assert set(DOCS.rglob("*.md")) - {index} <= named


def test_every_picture_is_on_a_page() -> None:
    """A picture that no page shows gets old unnoticed."""
    shown = {(page.parent / link).resolve() for page in PAGES for link in markdown.links(page.read_text())}
    assert set((DOCS / "images").iterdir()) <= shown


@pytest.mark.parametrize("term", TERMS)
def test_the_glossary_explains_a_term(term: str) -> None:
    """In at least one sentence."""
    entries = dict(re.findall(r"^### ([^\n]+)\n\n(.+?)(?=\n\n#|\Z)", GLOSSARY, re.MULTILINE | re.DOTALL))
    (explained,) = (text for name, text in entries.items() if name.lower().replace(" ", "-") == term)
    assert len(explained.split()) > 8


@pytest.mark.parametrize("name", ["README.md", "docs/sandbox.md", "docs/tutorial-product-service.md"])
def test_a_page_links_to_the_glossary_before_it_uses_a_term(name: str) -> None:
    """The first use of a linked term is the link."""
    text = markdown.FENCED.sub("", (TOP / name).read_text().partition("\n\n")[2])
    linked = re.findall(r"\[([^\]]+)\]\((?:docs/)?glossary\.md#([\w-]+)\)", text)
    assert len(linked) >= 4
    for words, term in linked:
        first = re.search(rf"(?<!\w){re.escape(words)}(?!\w|\.\w)", text)
        assert first is not None
        assert text[first.end() :].startswith(f"]({'docs/' if name == 'README.md' else ''}glossary.md#{term})"), words


def test_the_settings_page_lists_every_setting_with_default_and_meaning() -> None:
    """The page and settings.py must agree."""
    wanted = []
    for name, field in (Settings.model_fields | ClientSettings.model_fields).items():
        default = "" if field.default is None else str(field.default)
        default = default.lower() if isinstance(field.default, bool) else default
        wanted.append([f"`{environment_name(name)}`", f"`{default}`" if default else "", field.description])
    assert sorted(markdown.rows((DOCS / "settings.md").read_text())) == sorted(wanted)


def test_the_commands_page_lists_every_command() -> None:
    """And every command on the page exists."""
    root = typer.main.get_command(app)
    assert isinstance(root, typer.core.TyperGroup)
    rows = [row[0] for row in markdown.rows(COMMANDS)]
    assert {re.findall(r"`([a-z-]+)", row)[0] for row in rows} == set(root.commands)
    for name in ("merchant", "webhook"):
        group = root.commands[name]
        assert isinstance(group, typer.core.TyperGroup)
        (row,) = (row for row in rows if row.startswith(f"`{name}"))
        assert set(re.findall(rf"`(?:{name} )?([a-z-]+)`", row)) == set(group.commands)


def test_the_commands_page_lists_every_exit_code() -> None:
    """Scripts depend on them."""
    codes = re.findall(r"^\| (\d+) \|", markdown.sections(COMMANDS)["Exit codes"], re.MULTILINE)
    assert {int(code) for code in codes} == {*ExitStatus, 2}
