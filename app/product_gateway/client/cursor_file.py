"""The file with the cursor of a feed of changes, with which a later command goes on."""

import base64
import binascii
from pathlib import Path

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from product_gateway import data_directory
from product_gateway.client.context import Context
from product_gateway.client.gateway import plain
from product_gateway.errors import SettingsError
from product_gateway.model.syncs import EntityType
from product_gateway.settings import PREFIX


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid")

    gateway: str
    merchant: str | None
    entityType: EntityType  # noqa: N815 - as in the API
    cursor: str = Field(min_length=1)


class CursorFile:
    """A file with a cursor, and the feed that it belongs to: gateway, merchant and entity type."""

    def __init__(self, path: Path, where: Context, entity_type: EntityType) -> None:
        self._path = path
        self._feed = {"gateway": where.url, "merchant": _merchant(where.token), "entityType": entity_type.value}
        self._written: str | None = None

    def read(self) -> str | None:
        """Return the stored cursor; None if there is no file. Raise SettingsError."""
        try:
            stored = _Stored.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SettingsError(f"--cursor-file: {self._path} cannot be read: {error.strerror}.") from None
        except ValidationError:
            raise SettingsError(
                f"--cursor-file: {self._path} holds no cursor. If you delete it, the feed starts from the beginning."
            ) from None
        found = stored.model_dump(mode="json", exclude={"cursor"})
        for name, wanted in self._feed.items():
            if found[name] != wanted:
                raise SettingsError(
                    f"--cursor-file: {self._path} is for the {name} {plain(str(found[name]))}, not {wanted}. Name "
                    "another file for each gateway, merchant and entity type."
                )
        self._written = stored.cursor
        return stored.cursor

    def write(self, cursor: str) -> None:
        """Replace the file atomically, unless it has the cursor. Raise SettingsError."""
        if cursor == self._written:
            return
        try:
            data_directory.write_private(self._path, orjson.dumps({**self._feed, "cursor": cursor}) + b"\n")
        except SettingsError as error:
            raise SettingsError(error.detail.replace(f"{PREFIX}DATA_DIR", "--cursor-file")) from None
        self._written = cursor


def _merchant(token: str) -> str | None:
    """Return the merchant that the token names, unverified; None if the token has no usual claim for it."""
    try:
        payload = token.split(".")[1]
        claims = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        found = claims.get("merchant", claims.get("sub"))
    except (IndexError, binascii.Error, orjson.JSONDecodeError, AttributeError):
        return None
    return None if found is None else str(found)
