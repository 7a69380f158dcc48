"""The guides of docs/ as Markdown, and their list in the form of llmstxt.org."""

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from product_gateway.openapi import documents

HERE = Path(__file__).parent
INDEX = "docs/README.md"
SPECS = {
    f"openapi/{documents.GATEWAY}": "openapi.yaml",
    **{f"openapi/{name}": name for name in (documents.PRODUCT_SERVICE, documents.WORKFLOWS)},
}
# Code, which stays as written, or a link: whether it is an image, its text and its target.
_LINK = re.compile(r"(?ms:^```.*?^```$)|`[^`\n]*`|(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)\s]+)\)")
_ROW = re.compile(r"^\| (\[.+?) \| (.+) \|$|^(## .+)$", re.MULTILINE)
_NAMED = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")


def _folder() -> Path:
    """Return the folder: beside this module in a wheel, the top-level docs/ in a checkout."""
    packaged = HERE / "guides"
    return packaged if packaged.is_dir() else HERE.parents[2] / "docs"


def _sources() -> dict[str, str]:
    folder = _folder()
    names = {path: f"docs/{path.relative_to(folder).as_posix()}" for path in sorted(folder.rglob("*.md"))}
    return {name: path.read_text("utf-8") for path, name in names.items()}


def load() -> dict[str, str]:
    """Return the guides, by their paths below /docs/. Links lead to what the server has."""
    sources = _sources()
    return {name.removeprefix("docs/"): _linked(text, name, sources) for name, text in sources.items()}


def llms_txt() -> str:
    """Return the list: title, summary, and a link to each guide that the index names, with what it is about."""
    sources = _sources()
    titles = {name: text.partition("\n")[0].removeprefix("# ") for name, text in sources.items()}
    summary = " ".join(documents.load(documents.GATEWAY)["info"]["description"].partition("\n\n")[0].split())
    parts, heading = [f"# Product gateway\n\n> {summary}\n"], ""
    for links, meaning, section in _ROW.findall(_linked(sources[INDEX], INDEX, sources, seen_from="")):
        heading = f"\n{section}\n\n" if section else heading
        for name, target in _NAMED.findall(links):
            parts.append(f"{heading}- [{titles.get(target, name)}]({target}): {meaning}\n")
            heading = ""
    return "".join(parts)


def _linked(text: str, name: str, sources: dict[str, str], seen_from: str | None = None) -> str:
    """Rewrite the links of a file, for a reader of the folder `seen_from`. What is not served keeps its text alone."""
    folder = dirname(name)

    def rewritten(link: re.Match[str]) -> str:
        image, label, target = link.groups()
        if target is None:
            return link[0]
        path, hash_sign, anchor = target.partition("#")
        file = normpath(join(folder, path))
        served = file if file in sources else SPECS.get(file)
        if image or served is None:
            return "" if image else str(label)
        return f"[{label}]({relpath(served, folder if seen_from is None else seen_from or '.')}{hash_sign}{anchor})"

    return _LINK.sub(rewritten, text)
