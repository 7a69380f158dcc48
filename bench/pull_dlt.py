"""The peer of the pull: dlt, used as its documentation shows (rest_api source, merge by primary key).

Prints the wall-clock and CPU seconds of the run, without imports and without the set-up of the pipeline.
"""

import os
import sys
import tempfile
import time
from urllib.parse import quote

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
os.environ["RUNTIME__LOG_LEVEL"] = "CRITICAL"

import dlt
from dlt.sources.rest_api import rest_api_source
from sqlalchemy import make_url

TABLE = "products"


def main(database: str, service: str, page_size: str) -> None:
    """Pull a merchant's products."""
    to_sqlite = database.startswith("sqlite")
    pipeline = dlt.pipeline(
        "pull",
        pipelines_dir=tempfile.mkdtemp(),
        destination=dlt.destinations.sqlalchemy(database)
        if to_sqlite
        else dlt.destinations.postgres(by_socket(database)),
        dataset_name="main" if to_sqlite else "public",
    )
    source = rest_api_source(
        {
            "client": {
                "base_url": service,
                "paginator": {"type": "cursor", "cursor_path": "pagination.nextCursor", "cursor_param": "cursor"},
            },
            "resources": [
                {
                    "name": TABLE,
                    "primary_key": "id",
                    "write_disposition": "merge",
                    "endpoint": {"path": "products", "params": {"page_size": page_size}, "data_selector": "items"},
                }
            ],
        }
    )
    started, used = time.perf_counter(), time.process_time()
    pipeline.run(source)
    print(time.perf_counter() - started, time.process_time() - used)


def by_socket(database: str) -> str:
    """Return a URL with the folder of the Unix socket as a quoted host, because dlt requires a host."""
    url = make_url(database)
    if not url.host:
        url = url.set(host=quote(str(url.query["host"]), safe=""), query={})
    return url.render_as_string(hide_password=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
