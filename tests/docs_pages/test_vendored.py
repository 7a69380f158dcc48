"""Third-party files are shipped unchanged, with their licences."""

import pytest

from tests.tools.vendored import FOLDER, PAGES, Package, packages, sha256, shipped

FILES = [(package, name) for package in packages() for name in package.files]
WORDS = {"MIT": b"Permission is hereby granted, free of charge", "Apache-2.0": b"Apache License"}


@pytest.mark.parametrize(("package", "name"), FILES, ids=[name for _, name in FILES])
def test_a_vendored_file_has_the_published_hash(package: Package, name: str) -> None:
    """Only published code may run in a reader's browser. `make vendor` fetches it again."""
    assert sha256(shipped(name), package.files[name]) == package.files[name]["sha256"]


def test_every_vendored_file_is_listed() -> None:
    """With its package, version and licence in VENDORED.toml."""
    listed = {name if name.endswith(".txt") else f"{name}.gz" for _, name in FILES}
    assert {path.name for path in FOLDER.iterdir()} == listed


@pytest.mark.parametrize("package", packages(), ids=lambda each: each.name)
def test_a_package_is_shipped_with_its_licence(package: Package) -> None:
    """Both licences require it."""
    (text,) = (shipped(name) for name, file in package.files.items() if file["path"] == "LICENSE")
    assert WORDS[package.licence] in text


def test_replaced_urls_of_other_hosts_are_gone() -> None:
    """Pages may load from their own server only."""
    for package, name in FILES:
        if "instead_of" in package.files[name]:
            assert package.files[name]["instead_of"].encode() not in shipped(name)
            assert package.files[name]["ships"].encode() in shipped(name)
    assert b"cdn." not in b"".join(path.read_bytes() for path in PAGES.glob("*.html"))
