"""Hatch build hook: the guides of docs/ in the wheel, without pictures and recipes. A gateway serves them."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WheelGuides(BuildHookInterface):  # type: ignore[type-arg]
    """The hook that pyproject.toml names."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add each guide to the files of the wheel."""
        docs = Path(self.root, "docs")
        for path in docs.rglob("*.md"):
            target = Path("product_gateway/docs_pages/guides", path.relative_to(docs))
            build_data["force_include"][str(path)] = target.as_posix()
