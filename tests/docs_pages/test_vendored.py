"""What others wrote is shipped as they published it, with their licences."""

import pytest

from tests.tools.vendored import FOLDER, PAGES, Package, packages, sha256, shipped

FILES = [(package, name) for package in packages() for name in package.files]
WORDS = {"MIT": b"Permission is hereby granted, free of charge", "Apache-2.0": b"Apache License"}


@pytest.mark.parametrize(("package", "name"), FILES, ids=[name for _, name in FILES])
def test_a_file_is_the_one_that_was_published(package: Package, name: str) -> None:
    """Not a byte of what runs in a reader's browser is somebody else's. `make vendor` fetches it again."""
    assert sha256(shipped(name), package.files[name]) == package.files[name]["sha256"]


def test_nothing_is_shipped_that_is_not_listed() -> None:
    """Every file has its package, version and licence in VENDORED.toml."""
    listed = {name if name.endswith(".txt") else f"{name}.gz" for _, name in FILES}
    assert {path.name for path in FOLDER.iterdir()} == listed


@pytest.mark.parametrize("package", packages(), ids=lambda each: each.name)
def test_a_package_comes_with_the_licence_that_it_is_listed_with(package: Package) -> None:
    """Both ask for it to be passed on."""
    (text,) = (shipped(name) for name, file in package.files.items() if file["path"] == "LICENSE")
    assert WORDS[package.licence] in text


def test_what_is_replaced_asks_no_other_host() -> None:
    """The one address that a page would have loaded something from is gone, and so is every one of its kind."""
    for package, name in FILES:
        if "instead_of" in package.files[name]:
            assert package.files[name]["instead_of"].encode() not in shipped(name)
            assert package.files[name]["ships"].encode() in shipped(name)
    assert b"cdn." not in b"".join(path.read_bytes() for path in PAGES.glob("*.html"))
