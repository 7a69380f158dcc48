"""Rules about the source tree that import-linter cannot express."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import product_gateway

PACKAGE = Path(product_gateway.__file__).parent
TESTS = sorted(Path(__file__).parents[1].rglob("*.py"))
FILES = sorted(PACKAGE.rglob("*.py"))
ENVIRONMENT = {("os", name) for name in ("environ", "environb", "getenv", "getenvb", "putenv", "unsetenv")}


def used(path: Path) -> Iterator[tuple[str, str]]:
    """Return the imported names that the file uses, as (module, name), for both forms of import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules.update({alias.asname or alias.name: alias.name for alias in node.names})
        if isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield modules.get(node.value.id, ""), node.attr


def test_the_package_lists_its_modules_and_nothing_else() -> None:
    """The list is the entry point for new readers."""
    listed = re.findall(r"^    (\w+) ", product_gateway.__doc__ or "", re.MULTILINE)
    modules = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.parent.name for path in PACKAGE.glob("*/__init__.py")
    }
    assert sorted(listed) == sorted(modules - {"__init__"})


def test_only_settings_reads_the_environment() -> None:
    """All settings are in one place."""
    assert [path.name for path in FILES if ENVIRONMENT & set(used(path))] == ["settings.py"]


def test_nothing_sleeps_on_a_thread() -> None:
    """`time.sleep` blocks the event loop, or delays a shutdown."""
    assert [path.name for path in FILES if ("time", "sleep") in set(used(path))] == []


def test_no_test_imports_a_test() -> None:
    """What several tests use is in `tests/support`."""
    pattern = re.compile(r"^ *(from|import) tests\.\w+\.(test_\w+)| import .*\btest_\w+", re.MULTILINE)
    found = {path.name: pattern.findall(path.read_text(encoding="utf-8")) for path in TESTS}
    assert {name for name, imports in found.items() if imports} == set()


def test_at_most_eight_modules_stand_directly_in_the_package() -> None:
    """Everything else has a package with a standard name."""
    assert len(list(PACKAGE.glob("*.py"))) <= 8


def test_no_init_module_holds_logic() -> None:
    """A package's `__init__.py` is its docstring."""
    for path in PACKAGE.rglob("__init__.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body), path
