"""make bench: run the named sections, and write RESULTS.md from their results and earlier ones."""

import importlib
import signal
import sys
import time

import report
import tools
from rounds import Section

# In the order of RESULTS.md. Each is a module with `run() -> Section`.
SECTIONS = {
    "requests": "request_path",
    "process": "process",
    "processes": "processes",
    "pull": "pull",
    "generations": "generations",
    "memory": "memory",
    "history": "history",
    "queue_wait": "queue_wait",
    "workers": "workers",
    "simulation": "simulation",
}


def main(names: list[str]) -> int:
    """Run the sections, and write each result at once, so that a failing section loses no other result."""
    chosen = list(SECTIONS) if names in ([], ["all"]) else names
    if unknown := sorted(set(chosen) - set(SECTIONS)):
        print(f"There is no section {', '.join(unknown)}. There are: {', '.join(SECTIONS)}.", file=sys.stderr)
        return 2
    if lacking := tools.missing(chosen):
        print("\n".join(lacking), file=sys.stderr)
        return 1
    failed = []
    for name in chosen:
        started = time.monotonic()
        print(f"{name} …", flush=True)
        try:
            section: Section = importlib.import_module(SECTIONS[name]).run()
        except Exception as error:
            failed.append(name)
            print(f"{name} failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            if len(chosen) == 1:
                raise
            continue
        section.save()
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
        report.write(list(SECTIONS))
    report.write(list(SECTIONS))
    return 1 if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end with it
    sys.exit(main(sys.argv[1:]))
