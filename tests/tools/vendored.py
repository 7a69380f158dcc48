"""What the pages bring along that others wrote, as pages/VENDORED.toml lists it. `make vendor` fetches it again."""

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
    """A package of the npm registry, and what of it is shipped."""

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
    """Of a shipped file, with what was replaced in it put back."""
    if "instead_of" in file:
        content = content.replace(f'"{file["ships"]}"'.encode(), f'"{file["instead_of"]}"'.encode())
    return hashlib.sha256(content).hexdigest()


def _fetched(package: Package, folder: Path) -> tuple[str, Path]:
    """The package's integrity and its archive, from the registry that npm is set up with."""
    command = ["npm", "pack", f"{package.name}@{package.version}", "--json", "--loglevel=error"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=LONGEST_FETCH)
    said = json.loads(done.stdout)
    (found,) = said.values() if isinstance(said, dict) else said
    return found["integrity"], folder / found["filename"]


def _differences(package: Package) -> Iterator[str]:
    """Writes the package's files; says where they are not as the list has them."""
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
    """Fetches every package. Exit status 1 where one is not what VENDORED.toml says."""
    FOLDER.mkdir(exist_ok=True)
    found = [each for package in packages() for each in _differences(package)]
    if found:
        sys.exit(f"{LIST.name} says otherwise; if that is meant, write there:\n" + "\n".join(found))
    print(f"All as {LIST.name} says: {', '.join(f'{each.name} {each.version}' for each in packages())}")


if __name__ == "__main__":
    main()
