"""Chaos, as `make chaos` runs it, for as long as the tests can wait."""

from pathlib import Path

from chaos import chaos


def test_a_quarter_of_a_minute_of_chaos_breaks_no_promise(tmp_path: Path) -> None:
    """Whatever is killed, stopped, restarted or cut, nothing is lost, doubled or stuck."""
    report = chaos(15, tmp_path, seed=1)
    print(report)
    assert report.violations == []
    assert report.syncs["SUCCEEDED"] >= 8, "the last ones must all be here"
    assert sum(report.faults.values()) >= 5, "without faults it proves nothing"
