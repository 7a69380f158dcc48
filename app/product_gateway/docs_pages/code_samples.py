"""Code samples of each operation in four languages, for the reference.

An operation of the spec may have its own samples (`x-codeSamples`); these are for all others. Each sample runs
unchanged, with the server's address and a token in environment variables, GATEWAY (or another one) and TOKEN.
"""

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from product_gateway.openapi import documents


@dataclass(frozen=True, slots=True)
class Request:
    """A sample's request: method in upper case, path with query, whether it needs a token, whether it returns JSON."""

    method: str
    path: str
    secured: bool
    json: bool


def _shell(request: Request) -> str:
    method = "" if request.method == "GET" else f" -X {request.method}"
    token = ' \\\n  -H "Authorization: Bearer $TOKEN"' if request.secured else ""
    return f'curl -i{method} "$GATEWAY{request.path}"{token}\n'


def _python(request: Request) -> str:
    token = """    headers={"Authorization": f"Bearer {os.environ['TOKEN']}"},\n""" if request.secured else ""
    read = "answer.json()" if request.json else "answer.text"
    return (
        "import os\n\nimport requests\n\n"
        f"answer = requests.{request.method.lower()}(\n"
        f"    os.environ[\"GATEWAY\"] + \"{request.path}\",\n{token}    timeout=30,\n)\n"
        f"print(answer.status_code, {read})\n"
    )  # fmt: skip


def _javascript(request: Request) -> str:
    options = [] if request.method == "GET" else [f'  method: "{request.method}",\n']
    options += ["  headers: { Authorization: `Bearer ${process.env.TOKEN}` },\n"] if request.secured else []
    second = f", {{\n{''.join(options)}}}" if options else ""
    read = "json" if request.json else "text"
    return (
        f'const answer = await fetch(process.env.GATEWAY + "{request.path}"{second});\n'
        f"console.log(answer.status, await answer.{read}());\n"
    )


def _java(request: Request) -> str:
    token = '\n    .header("Authorization", "Bearer " + System.getenv("TOKEN"))' if request.secured else ""
    body = "BodyPublishers.noBody()"
    method = "" if request.method == "GET" else f'\n    .method("{request.method}", HttpRequest.{body})'
    return (
        "import java.net.URI;\nimport java.net.http.*;\n\n"
        f'var url = System.getenv("GATEWAY") + "{request.path}";\n'
        f"var request = HttpRequest.newBuilder(URI.create(url)){token}{method}\n    .build();\n"
        "var answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());\n"
        'System.out.println(answer.statusCode() + " " + answer.body());\n'
    )


LANGUAGES: dict[str, tuple[str, Callable[[Request], str]]] = {
    "curl": ("Shell", _shell),
    "Python": ("Python", _python),
    "JavaScript": ("JavaScript", _javascript),
    "Java": ("Java", _java),
}
"""Label -> (name of the language for highlighters, function that writes the sample)."""


def with_code_samples(document: documents.Document, variable: str = "GATEWAY") -> documents.Document:
    """Return a copy of the document with `x-codeSamples` in every operation. `variable` has the server's address."""
    paths = {path: dict(item) for path, item in document["paths"].items()}
    for path, method, operation in documents.operations(document):
        own = {each["label"]: each for each in operation.get("x-codeSamples", [])}
        request = _request(document, path, method, operation)
        samples = [
            own.get(label) or {"lang": language, "label": label, "source": write(request).replace("GATEWAY", variable)}
            for label, (language, write) in LANGUAGES.items()
        ]
        paths[path][method] = {**operation, "x-codeSamples": samples}
    return {**document, "paths": paths}


def _request(document: documents.Document, path: str, method: str, operation: documents.Document) -> Request:
    """Return the request with the spec's examples: path parameters, and query parameters that have a default."""
    query = []
    for parameter in documents.parameters(document, path, operation):
        value = quote(str(parameter["example"]), safe="")
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", value)
        elif "default" in documents.resolve(document, parameter["schema"]):
            query.append(f"{parameter['name']}={value}")
    succeeded = next(answer for status, answer in operation["responses"].items() if status.startswith("2"))
    return Request(
        method.upper(),
        path + ("?" + "&".join(query) if query else ""),
        documents.is_secured(document, operation),
        list(succeeded["content"]) == ["application/json"],
    )
