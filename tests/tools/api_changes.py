"""Find breaking changes of a spec against its released version: `make specs` refuses them within a major version.

For product-gateway.yaml, the server must accept all requests as before, and responses may only gain members. For
product-service.yaml, which merchants implement, it is the other way round. npm's openapi-diff does not compare
parameters, enums, `nullable` and security.
"""

import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from product_gateway.openapi import documents

Node = dict[str, Any]

OPENAPI = Path(__file__).parents[2] / "openapi"
RELEASED = OPENAPI / "released"
WE_SERVE = {documents.GATEWAY: True, documents.PRODUCT_SERVICE: False}
TEXTS = {"info", "tags", "summary", "description", "example", "examples", "externalDocs", "links", "x-codeSamples"}
LOWER, UPPER = ("minimum", "minLength", "minItems"), ("maximum", "maxLength", "maxItems")
COMBINED = ("allOf", "anyOf", "oneOf", "not")


@dataclass
class Comparison:
    """The findings of one document against its released copy, one line each. `ours`: the gateway is the server."""

    old: Node
    new: Node
    ours: bool
    _seen: set[tuple[str, str, bool]] = field(default_factory=set)

    def findings(self) -> list[str]:
        """Return every change that breaks a client of the gateway, or a merchant's service."""
        return sorted({*self._operations(), *self._names()})

    def _names(self) -> Iterator[str]:
        names = [set(each["components"]["schemas"]) for each in (self.old, self.new)]
        for name in names[0] - names[1] if self.ours else ():
            yield f"schema {name}: gone; generated clients have a type of this name"

    def _operations(self) -> Iterator[str]:
        old, new = (
            {f"{method.upper()} {path}": (item[path], each) for path, method, each in documents.operations(document)}
            for document, item in ((self.old, self.old["paths"]), (self.new, self.new["paths"]))
        )
        for name in sorted(set(old) ^ set(new)):
            if name in old and self.ours:
                yield f"{name}: gone"
            elif name in new and not self.ours:
                yield f"{name}: new; merchants have not implemented it"
        for name in sorted(set(old) & set(new)):
            yield from self._operation(name, *old[name], *new[name])

    def _operation(self, name: str, old_item: Node, old: Node, new_item: Node, new: Node) -> Iterator[str]:
        for key, what in (("operationId", "generated clients name a method after it"), ("x-required-scope", "")):
            if old.get(key) != new.get(key):
                yield f"{name}, {key}: is {new.get(key)}, was {old.get(key)}" + (f"; {what}" if what else "")
        if old.get("security", self.old.get("security")) != new.get("security", self.new.get("security")):
            yield f"{name}, security: is another"
        yield from self._parameters(
            name, self._by_name(self.old, old_item, old), self._by_name(self.new, new_item, new)
        )
        yield from self._responses(name, old["responses"], new["responses"])

    @staticmethod
    def _by_name(document: Node, item: Node, operation: Node) -> dict[str, Node]:
        found = [
            documents.resolve(document, each)
            for each in (*item.get("parameters", []), *operation.get("parameters", []))
        ]
        return {f"{each['in']} parameter {each['name']}": each for each in found}

    def _parameters(self, name: str, old: dict[str, Node], new: dict[str, Node]) -> Iterator[str]:
        for gone in sorted(set(old) - set(new)):
            if self.ours:
                yield f"{name}, {gone}: gone"
        for added in sorted(set(new) - set(old)):
            if new[added].get("required") or not self.ours:
                yield f"{name}, {added}: new, and {'required' if self.ours else 'merchants do not know it'}"
        for both in sorted(set(old) & set(new)):
            before, now = old[both].get("required", False), new[both].get("required", False)
            if before != now and now is self.ours:
                yield f"{name}, {both}: {'now required' if now else 'no longer always sent'}"
            yield from self._schema(f"{name}, {both}", old[both]["schema"], new[both]["schema"], may_grow=self.ours)

    def _responses(self, name: str, old: Node, new: Node) -> Iterator[str]:
        for status in sorted(set(old) - set(new)):
            yield f"{name} {status}: gone"
        for status in sorted(set(old) & set(new)):
            before, now = documents.resolve(self.old, old[status]), documents.resolve(self.new, new[status])
            yield from self._headers(f"{name} {status}", before.get("headers", {}), now.get("headers", {}))
            contents = before.get("content", {}), now.get("content", {})
            for media_type in sorted(set(contents[0]) - set(contents[1])):
                yield f"{name} {status}, {media_type}: gone"
            for media_type in sorted(set(contents[0]) & set(contents[1])):
                was, is_now = (each[media_type].get("schema", {}) for each in contents)
                yield from self._schema(f"{name} {status}", was, is_now, may_grow=not self.ours)

    def _headers(self, name: str, old: Node, new: Node) -> Iterator[str]:
        for header in sorted({*old, *new}):
            before = documents.resolve(self.old, old.get(header, {}))
            now = documents.resolve(self.new, new.get(header, {}))
            if self.ours and header in old and header not in new:
                yield f"{name}, header {header}: gone"
            elif self.ours and before.get("required") and not now.get("required"):
                yield f"{name}, header {header}: no longer in every answer"
            elif not self.ours and now.get("required") and not before.get("required"):
                yield f"{name}, header {header}: now required"
            if header in old and header in new:
                yield from self._schema(f"{name}, header {header}", before["schema"], now["schema"], not self.ours)

    def _schema(self, where: str, old: Node, new: Node, may_grow: bool) -> Iterator[str]:
        """Compare two schemas. With `may_grow` the new one must allow at least the old values, otherwise at most."""
        if "$ref" in old and "$ref" in new:
            if (old["$ref"], new["$ref"], may_grow) in self._seen:
                return  # said already, where it was met first
            self._seen.add((old["$ref"], new["$ref"], may_grow))
            where = f"schema {old['$ref'].rpartition('/')[2]}"
        old, new = documents.resolve(self.old, old), documents.resolve(self.new, new)
        if may_grow:
            yield from (f"{where}: {what}" for what in _lost(old, new))
        else:
            yield from (f"{where}: {what}" for what in _lost(new, old, backwards=True))
        if old.get("default") != new.get("default"):
            yield f"{where}, default: is {new.get('default')}, was {old.get('default')}"
        if "items" in old and "items" in new:
            yield from self._schema(f"{where}[]", old["items"], new["items"], may_grow)
        properties = old.get("properties", {}), new.get("properties", {})
        required = set(old.get("required", [])), set(new.get("required", []))
        for name in sorted(set(properties[0]) - set(properties[1])):
            yield f"{where}.{name}: gone"
        for name in sorted(required[0] - required[1]):
            if not may_grow and name in properties[1]:
                yield f"{where}.{name}: no longer always there"
        for name in sorted(required[1] - required[0]):
            if may_grow:
                yield f"{where}.{name}: now required"
        for name in sorted(set(properties[0]) & set(properties[1])):
            yield from self._schema(f"{where}.{name}", properties[0][name], properties[1][name], may_grow)


def _lost(wide: Node, narrow: Node, *, backwards: bool = False) -> Iterator[str]:
    """Yield each restriction of `narrow` that `wide` lacks; `backwards` reverses the direction of the message."""

    def told(key: str) -> str:
        before, now = (narrow, wide) if backwards else (wide, narrow)
        return f"{key} is {now.get(key)}, was {before.get(key)}"

    types = wide.get("type"), narrow.get("type")
    if types[0] != types[1] and types != ("integer", "number"):
        yield told("type")
    if "enum" in narrow and not ("enum" in wide and set(wide["enum"]) <= set(narrow["enum"])):
        yield told("enum")
    for key in LOWER:
        if key in narrow and narrow[key] > wide.get(key, float("-inf")):
            yield told(key)
    for key in UPPER:
        if key in narrow and narrow[key] < wide.get(key, float("inf")):
            yield told(key)
    for key in ("pattern", "format"):
        if key in narrow and narrow[key] != wide.get(key):
            yield told(key)
    if wide.get("nullable", False) and not narrow.get("nullable", False):
        yield told("nullable")
    if wide.get("additionalProperties", True) is not False and narrow.get("additionalProperties", True) is False:
        yield told("additionalProperties")
    for key in COMBINED:
        if wide.get(key) != narrow.get(key):
            yield f"{told(key)}; nothing here can tell whether that matters"


def shape(node: Any, named: bool = False) -> Any:
    """Return a document without its texts. In a map of properties, the keys are names."""
    if isinstance(node, list):
        return [shape(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {key: shape(value, key == "properties") for key, value in node.items() if named or key not in TEXTS}


def faults(name: str, old: Node, new: Node, accepted: dict[str, str]) -> list[str]:
    """Return the objections to `new` as the next version of `old`."""
    found = Comparison(old, new, WE_SERVE[name]).findings()
    before, now = (tuple(int(part) for part in each["info"]["version"].split(".")) for each in (old, new))
    said = [
        f"{each}\n  (allowed with version {before[0] + 1}.0.0, or with a reason in released/accepted.toml)"
        for each in found
        if each not in accepted and now[0] <= before[0]
    ]
    said += [f"{each}\n  (accepted, but no difference any more)" for each in accepted if each not in found]
    if shape(old) != shape(new) and now[:2] <= before[:2]:
        least = f"{before[0]}.{before[1] + 1}.0"
        said.append(f"info.version is {new['info']['version']}: what was changed makes it at least {least}")
    return said


def accepted(name: str) -> dict[str, str]:
    """Return finding -> reason."""
    entries = tomllib.loads((RELEASED / "accepted.toml").read_text())["accepted"]
    return {each["finding"]: each["reason"] for each in entries if each["document"] == name}


def versions(name: str) -> list[Path]:
    """Return the released copies of a document, the oldest first: {version}/{name}."""
    return sorted(RELEASED.glob(f"*/{name}"), key=lambda path: [int(part) for part in path.parent.name.split(".")])


def main() -> None:
    """Check every document against its newest release. Exit with 1 on an objection."""
    said = []
    for name in WE_SERVE:
        old, new = (yaml.safe_load(path.read_bytes()) for path in (versions(name)[-1], OPENAPI / name))
        said += [f"openapi/{name}: {each}" for each in faults(name, old, new, accepted(name))]
        if not said:
            print(f"openapi/{name} {new['info']['version']} is compatible with {old['info']['version']}")
    if said:
        sys.exit("\n".join(said))


if __name__ == "__main__":
    main()
