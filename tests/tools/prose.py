"""Fail where a text uses words that make a sentence ambiguous: run by `make prose`."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).parents[2]
FOLDERS = (
    "app",
    "tests",
    "docs",
    "openapi",
    "bench",
    "deploy",
    ".github",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "Makefile",
    "pyproject.toml",
)
ENDINGS = (".py", ".md", ".yaml", ".html", ".toml")
VENDORED = (
    "app/product_gateway/docs_pages/vendored/",
    "openapi/released/",
    "tests/clients/",
    "tests/compatibility/public-documentation.yaml",
)
WORDS = (
    "whoever",
    "whatever",
    "whomever",
    "nobody",
    "somebody",
    "so many",
    "of ours",
    "let go of",
    "lets go of",
    "as it is",
)
JAVA = "BodyPublishers.noBody()"  # a name in a code sample
AMBIGUOUS = re.compile(rf"\b({'|'.join(WORDS)}|what (?:\w+ ){{0,3}}is is)\b", re.IGNORECASE)


def texts() -> Iterator[Path]:
    """Return the files of the project that people read."""
    listed = subprocess.run(["git", "ls-files", *FOLDERS], cwd=TOP, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if name.endswith(ENDINGS) and not name.startswith(VENDORED) and Path(name) != Path(__file__).relative_to(TOP):
            yield TOP / name


def main() -> None:
    """Print each line with such a word, and exit with 1 where there is one."""
    found = 0
    for path in texts():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for match in AMBIGUOUS.finditer(line.replace(JAVA, "")):
                found += 1
                print(f"{path.relative_to(TOP)}:{number}: {match[0]!r}: name the person or thing instead")
    if found:
        print(f"{found} ambiguous words. Name the concept, subject first.", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
