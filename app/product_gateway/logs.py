"""What is logged: one line a message on standard error, for people or as JSON, with the ids of what it is about.

`about(request_id=…, merchant=…, sync_id=…)` names what the running task works on; every line that the task logs from
then on carries it, whichever room it comes from.
"""

import logging
import re
from typing import Any, TextIO

import stamina.instrumentation
import structlog
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars, merge_contextvars
from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level, add_logger_name
from structlog.typing import EventDict, Processor

SILENCED = ("connexion", "httpx2", "httpcore2", "alembic", "uvicorn", "opentelemetry")  # but for warnings
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
AT_THE_FRONT = ("timestamp", "level", "event", "exception", "logger")

about = bind_contextvars
about_nothing = clear_contextvars
what_about = get_contextvars


def set_up(level: str, form: str = "text", stream: TextIO | None = None) -> None:
    """Logs to `stream` (None: standard error) from `level` on; `form` is text or json. Times are in UTC."""
    as_text = form == "text"
    handler = logging.StreamHandler(stream)
    shared: list[Processor] = [
        merge_contextvars,
        add_log_level,
        *([] if as_text else [add_logger_name]),
        ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                ProcessorFormatter.remove_processors_meta,
                _as_text if as_text else structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in SILENCED:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # It would print to standard output by itself as soon as structlog is there.
    stamina.instrumentation.set_on_retry_hooks(())


def _as_text(_logger: Any, _method: str, line: EventDict) -> str:
    """One line: time, level, message, then what it is about. What came from outside cannot begin another line."""
    more = "".join(f" {name}={line[name]}" for name in line if name not in AT_THE_FRONT)
    words = f"{line['timestamp']} {line['level'].upper()} {line['event']}{more}"
    plain = CONTROL.sub(lambda found: repr(found[0])[1:-1], words)
    return f"{plain}\n{line['exception']}" if "exception" in line else plain
