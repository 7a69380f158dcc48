"""Hatch metadata hook: the README and the project URLs of the wheel.

A package index shows the README without the repository, so relative links lead nowhere there. With the environment
variable PROJECT_URL, the repository's public address, relative links become absolute links to the release's tag, and
the wheel gets project URLs. Without it, only the text of relative links stays, and the wheel has no URLs.
"""

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#|mailto:)([^)]+)\)")


def readme(text: str, project_url: str, version: str) -> str:
    """Return the README with absolute links, or without relative links if there is no project URL."""

    def replaced(found: re.Match[str]) -> str:
        image, label, target = found.groups()
        if not project_url:
            return "" if image else label
        kind = "raw" if image else "blob"
        return f"{image}[{label}]({project_url}/{kind}/v{version}/{target.replace(chr(92), '')})"

    return LINK.sub(replaced, text)


def urls(project_url: str, version: str) -> dict[str, str]:
    """Return the project URLs; none if the project URL is unknown."""
    if not project_url:
        return {}
    return {
        "Homepage": project_url,
        "Documentation": f"{project_url}/tree/v{version}/docs",
        "Changelog": f"{project_url}/blob/v{version}/CHANGELOG.md",
        "Issues": f"{project_url}/issues",
    }


class WheelMetadata(MetadataHookInterface):
    """The hook that pyproject.toml names."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the dynamic fields `readme` and `urls`."""
        project_url = os.environ.get("PROJECT_URL", "").rstrip("/")
        if project_url and not project_url.startswith("https://"):
            raise ValueError(f"PROJECT_URL must start with https://, not {project_url!r}")
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": readme(text, project_url, metadata["version"]),
        }
        metadata["urls"] = urls(project_url, metadata["version"])
