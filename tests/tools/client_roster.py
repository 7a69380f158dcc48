"""The clients of `make clients`, with their requirements and commands, as in docs/clients.md.

The commands run in a folder with product-gateway.yaml and the client's files from tests/clients.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parents[2]
TOURS = TOP / "tests" / "clients"
ANNOTATIONS = Path("/usr/share/java/geronimo-annotation-1.3-spec.jar")
TOOLS = {
    "Java 11": "java -version",
    "JDK 11": "javac -version",
    "javax.annotation, Debian's libgeronimo-annotation-1.3-spec-java": f"test -f {ANNOTATIONS}",
    "Go 1.19": "go version",
    "PHP 8.1 with Guzzle": "php -r 'require \"GuzzleHttp/autoload.php\"; exit(PHP_VERSION_ID < 80100 ? 1 : 0);'",
    "Ruby 3 with typhoeus": "ruby -e 'require \"typhoeus\"'",
    "Node 20": "node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)'",
    "curl": "curl --version",
    "jq": "jq --version",
}


@dataclass(frozen=True)
class Client:
    """A client: its folder in tests/clients, its generator, and its commands."""

    name: str
    language: str
    package: str
    generate: str
    build: str
    run: str
    needs: tuple[str, ...] = ()
    target: str = ""
    form: str = ""  # of the spec, if it is not the source

    @property
    def generator(self) -> str:
        """Return the generator with its locked version."""
        return " ".join(filter(None, (self.package.removesuffix("-cli"), VERSIONS[self.package], self.target)))


MADE_FROM = "made-from"
"""The file with the `fingerprint` of a client that is generated and built."""


def fingerprint(client: Client, spec: Path, tour: Path) -> str:
    """Return a digest of everything that a client is generated and built from."""
    files = [spec, *sorted(each for each in tour.iterdir() if each.is_file())]
    content = b"\0".join(each.read_bytes() for each in files) + f"{client} {client.generator}".encode()
    return hashlib.sha256(content).hexdigest()


def _locked() -> dict[str, str]:
    python = re.findall(r"^([a-z-]+)==(\S+)", (TOP / "requirements" / "clients.txt").read_text(), re.MULTILINE)
    packages = json.loads((TOURS / "package-lock.json").read_text())["packages"]
    npm = {path.rpartition("node_modules/")[2]: str(each["version"]) for path, each in packages.items() if path}
    return {**dict(python), **npm}


VERSIONS = _locked()
SPEC, PYTHON_PACKAGE = "product-gateway.yaml", "product_gateway_client"


def _openapi_generator(target: str, *options: str) -> str:
    return " ".join((f"openapi-generator-cli generate -i {SPEC} -g {target} -o client", *options))


CLIENTS = (
    Client(
        name="python-urllib3",
        language="Python",
        package="openapi-generator-cli",
        target="python",
        generate=_openapi_generator("python", f"--package-name {PYTHON_PACKAGE}"),
        build="MYPYPATH=client mypy --strict --follow-imports silent tour.py",
        run="PYTHONPATH=client python tour.py",
        needs=("Java 11",),
    ),
    Client(
        name="python-httpx",
        language="Python",
        package="openapi-python-client",
        generate=f"openapi-python-client generate --path {SPEC} --meta none --output-path client/{PYTHON_PACKAGE}",
        build="MYPYPATH=client mypy --strict --follow-imports silent tour.py",
        run="PYTHONPATH=client python tour.py",
    ),
    Client(
        name="typescript-openapi-fetch",
        language="TypeScript",
        package="openapi-typescript",
        generate=f"openapi-typescript {SPEC} -o client/product-gateway.d.ts",
        build="tsc",
        run="node build/tour.js",
        needs=("Node 20",),
    ),
    Client(
        name="typescript-fetch",
        language="TypeScript",
        package="openapi-generator-cli",
        target="typescript-fetch",
        generate=_openapi_generator(
            "typescript-fetch",
            "--additional-properties importFileExtension=.js",
            "--model-name-mappings Error=GatewayError",
        ),
        build="tsc",
        run="node build/tour.js",
        needs=("Java 11", "Node 20"),
    ),
    Client(
        name="java",
        language="Java",
        package="openapi-generator-cli",
        target="java",
        generate=_openapi_generator(
            "java --library native",
            "--additional-properties openApiNullable=false,useSingleRequestParameter=true",
            "--invoker-package example.productgateway",
            "--api-package example.productgateway.api --model-package example.productgateway.model",
        ),
        build="javac -d build $(find client/src/main -name '*.java') Tour.java",
        run='java -cp "build:$CLASSPATH" Tour',
        needs=("JDK 11", "javax.annotation, Debian's libgeronimo-annotation-1.3-spec-java"),
    ),
    Client(
        name="go",
        language="Go",
        package="openapi-generator-cli",
        target="go",
        generate=_openapi_generator(
            "go",
            "--additional-properties disallowAdditionalPropertiesIfNotPresent=false --type-mappings number=float64",
            "--package-name productgateway",
            "--git-host shop.example --git-user-id clients --git-repo-id productgateway",
        ),
        build="go build -o build/tour .",
        run="build/tour",
        needs=("Java 11", "Go 1.19"),
    ),
    Client(
        name="php",
        language="PHP",
        package="openapi-generator-cli",
        target="php",
        generate=_openapi_generator("php", "--invoker-package ProductGateway"),
        build="",
        run="php tour.php",
        needs=("Java 11", "PHP 8.1 with Guzzle"),
    ),
    Client(
        name="ruby",
        language="Ruby",
        package="openapi-generator-cli",
        target="ruby",
        generate=_openapi_generator("ruby", "--additional-properties gemName=product_gateway_client"),
        build="",
        run="ruby -I client/lib tour.rb",
        needs=("Java 11", "Ruby 3 with typhoeus"),
    ),
    Client(
        name="bash",
        language="Bash",
        package="openapi-generator-cli",
        target="bash",
        generate=_openapi_generator("bash", "--additional-properties scriptName=product-gateway-client"),
        build="",
        run="bash tour.sh",
        needs=("Java 11", "curl", "jq"),
    ),
)
