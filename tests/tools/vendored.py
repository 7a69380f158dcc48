"""The third-party files of the pages, listed in VENDORED.toml. `make vendor` downloads them again."""

import gzip
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import product_gateway

PAGES = Path(product_gateway.__file__).parent / "docs_pages"
FOLDER = PAGES / "vendored"
LIST = PAGES / "VENDORED.toml"
LONGEST_FETCH = 120  # seconds


@dataclass(frozen=True)
class Package:
    """A package of the npm registry, and its shipped files."""

    name: str
    version: str
    licence: str
    integrity: str
    files: dict[str, dict[str, str]]


def packages() -> list[Package]:
    """All of them."""
    return [Package(**each) for each in tomllib.loads(LIST.read_text())["package"]]


def shipped(name: str) -> bytes:
    """Return a vendored file of the package, decompressed."""
    content = _path(name).read_bytes()
    return content if name.endswith(".txt") else gzip.decompress(content)


def _path(name: str) -> Path:
    return FOLDER / (name if name.endswith(".txt") else f"{name}.gz")


def sha256(content: bytes, file: dict[str, str]) -> str:
    """Return the digest of a shipped file, with the replacements undone."""
    if "instead_of" in file:
        content = content.replace(f'"{file["ships"]}"'.encode(), f'"{file["instead_of"]}"'.encode())
    return hashlib.sha256(content).hexdigest()


def _fetched(package: Package, folder: Path) -> tuple[str, Path]:
    """Return the package's integrity and archive, from npm's registry."""
    command = ["npm", "pack", f"{package.name}@{package.version}", "--json", "--loglevel=error"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=LONGEST_FETCH)
    said = json.loads(done.stdout)
    (found,) = said.values() if isinstance(said, dict) else said
    return found["integrity"], folder / found["filename"]


def _differences(package: Package) -> Iterator[str]:
    """Write the package's files; return those that differ from the list."""
    with tempfile.TemporaryDirectory() as folder:
        integrity, archive = _fetched(package, Path(folder))
        if integrity != package.integrity:
            yield f"{package.name}: integrity = {json.dumps(integrity)}"
        with tarfile.open(archive) as members:
            for name, file in package.files.items():
                member = members.extractfile(f"package/{file['path']}")
                assert member is not None, f"{package.name} has no file {file['path']}"
                content = member.read()
                found = hashlib.sha256(content).hexdigest()
                if found != file["sha256"]:
                    yield f"{name}: sha256 = {json.dumps(found)}"
                if "instead_of" in file:
                    content = content.replace(f'"{file["instead_of"]}"'.encode(), f'"{file["ships"]}"'.encode())
                written = content if name.endswith(".txt") else gzip.compress(content, 9, mtime=0)
                _path(name).write_bytes(written)


def main() -> None:
    """Download every package. Exit with 1 if one differs from VENDORED.toml."""
    FOLDER.mkdir(exist_ok=True)
    found = [each for package in packages() for each in _differences(package)]
    if found:
        sys.exit(f"{LIST.name} says otherwise; if that is meant, write there:\n" + "\n".join(found))
    print(f"All as {LIST.name} says: {', '.join(f'{each.name} {each.version}' for each in packages())}")


if __name__ == "__main__":
    main()
