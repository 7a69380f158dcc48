"""docs/operations: every metric, alert, code and command in it exists, and none is missing."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from product_gateway.cli.main import app
from product_gateway.model.syncs import EntityType
from product_gateway.model.webhooks import PendingDeliveries
from product_gateway.openapi import documents
from product_gateway.settings import Settings
from product_gateway.telemetry import metrics
from product_gateway.telemetry.metrics import FAULTS_OF_OURS, Metrics
from tests.support.promql import OF_PROMETHEUS, exposed, named

TOP = Path(__file__).parents[2]
PACKAGE = TOP / "app" / "product_gateway"
FOLDER = TOP / "docs" / "operations"
GUIDE, RUNBOOK = (FOLDER / "README.md").read_text(), (FOLDER / "runbook.md").read_text()
ALERTS: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text())
PANELS = [each for each in DASHBOARD["panels"] if each["type"] != "row"]
PROMTOOL = shutil.which("promtool")
OURS = "product_gateway_"
# The modules that name failure codes; NO_FAILURES are their other constants in capitals.
SOURCES = (
    *("sync/worker.py", "sync/pull.py", "sync/product_service.py"),
    *("db/catalog_write.py", "db/claims.py", "db/reverts.py"),
)
# Warnings of successful syncs.
WARNINGS = set(re.findall(r'"code": "([A-Z_]+)"', (PACKAGE / "openapi/bodies.py").read_text()))
NO_FAILURES = {"IN_PROGRESS", "HANDED_BACK"}

needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not on this machine (apt: prometheus)")


def expressions() -> dict[str, str]:
    """Return every expression of alerts, dashboard and guide, by its place."""
    found = {f"alert {each['alert']}": each["expr"] for each in ALERTS}
    for panel in PANELS:
        for target in panel["targets"]:
            found[f"panel {panel['title']} {target['refId']}"] = target["expr"]
    for each in DASHBOARD["templating"]["list"]:
        if each["type"] == "query":
            found[f"variable {each['name']}"] = each["query"]["query"]
    rows = re.findall(r"^\| [^|`]+ \| `([^`]+)`[^|]*\|$", GUIDE.partition("Questions that they")[2], re.MULTILINE)
    return found | {f"question {number}": each for number, each in enumerate(rows)}


EXPRESSIONS = expressions()


def codes() -> set[str]:
    """Return the failure codes of a sync. Most codes in records.py are those of rejected records."""
    sources = "".join((PACKAGE / name).read_text() for name in SOURCES)
    records = re.findall(r'PullFailed\(\s*"([A-Z_]+)"', (PACKAGE / "sync/records.py").read_text())
    assert records
    return (set(re.findall(r'"([A-Z]+(?:_[A-Z]+)+)"', sources)) | set(records)) - NO_FAILURES


def headings(part: str) -> list[str]:
    """Return the headings in one part of the runbook."""
    text = re.split(rf"^# {part}$", RUNBOOK, flags=re.MULTILINE)[1]
    return re.findall(r"^## (.+)$", re.split(r"^# ", text, flags=re.MULTILINE)[0], re.MULTILINE)


def test_the_table_has_every_metric_of_the_code() -> None:
    """With name, type, labels and meaning, in the order of the code."""
    shown = Metrics()
    shown.set_queue_stats([], PendingDeliveries(0, 0.0), {EntityType.PRODUCT: 0})
    shown.observe_request("getSync", 200, 0.1)
    wanted = []
    for family in shown.registry.collect():
        if family.name.startswith(OURS):
            labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
            name = f"{family.name}_total" if family.type == "counter" else family.name
            wanted.append((name, family.type, labels, family.documentation))
    rows = [line.strip("| ").split(" | ") for line in GUIDE.splitlines() if line.startswith(f"| `{OURS}")]
    assert [(row[0].strip("`"), row[1], re.findall(r"`(\w+)`", row[2]), row[3]) for row in rows] == wanted


def test_every_metric_that_the_guide_names_exists() -> None:
    """Including the process metrics of prometheus-client."""
    known = {name.removesuffix("_bucket") for name in exposed()} | exposed().keys()
    mentioned = set(re.findall(r"\b(?:product_gateway|process)_[a-z_]*[a-z]\b", GUIDE + RUNBOOK))
    assert {each for each in mentioned if not any(name.startswith(each) for name in known)} == set()
    assert {each for each in mentioned if each.startswith("process_")} <= known


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_an_expression_names_what_there_is(where: str) -> None:
    """An alert with a misspelt name or label would never fire."""
    found = named(EXPRESSIONS[where].replace("$__rate_interval", "5m"))
    assert not found.unknown, f"neither a metric nor a word of PromQL: {found.unknown}"
    assert found.metrics
    series, values = exposed(), {"failure_code": codes(), "reason": {metrics.OVERLOAD}, "job": {"product-gateway"}}
    for name, labels in found.metrics.items():
        assert labels.keys() <= series[name] | OF_PROMETHEUS, f"{name} has no such label: {labels}"
        for label, value in labels.items():
            assert label not in values or set(value.split("|")) <= values[label], f"{label} is never {value}"
    all_labels = set().union(*(series[name] for name in found.metrics))
    assert found.grouped <= all_labels | OF_PROMETHEUS, f"grouped by what is not there: {found.grouped}"


@pytest.mark.parametrize(
    "wrong",
    [
        "rate(product_gateway_request_total[5m])",
        "sum(rat(product_gateway_requests_total[5m]))",
        'product_gateway_queue{job="x"} > 1',
        "sum by (operation) (up) and prodct_gateway_database_up",
    ],
)
def test_a_misspelt_expression_is_found(wrong: str) -> None:
    """Otherwise the test above could not fail."""
    assert named(wrong).unknown


def test_every_metric_of_ours_is_on_the_dashboard() -> None:
    """A metric that is not displayed is not needed."""
    shown = {name for panel in PANELS for target in panel["targets"] for name in named(target["expr"]).metrics}
    bare = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exposed() if name.startswith(OURS)}
    bare.remove(f"{OURS}build_info")  # labels to join with, not a value
    assert {re.sub(r"_bucket$", "", name) for name in shown if name.startswith(OURS)} == bare


def test_the_dashboard_can_be_imported() -> None:
    """Grafana asks for the Prometheus data source at import."""
    assert DASHBOARD["schemaVersion"] >= 36
    assert "id" not in DASHBOARD
    kinds = {each["name"]: each["type"] for each in DASHBOARD["templating"]["list"]}
    assert kinds == {"datasource": "datasource", "instance": "query"}
    places = []
    for panel in PANELS:
        for each in (panel, *panel["targets"]):
            assert each["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        places += [(panel["gridPos"]["x"], panel["gridPos"]["y"])]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    assert len(set(places)) == len(PANELS)
    ids = [each["id"] for each in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_the_runbook_has_every_alert_and_every_code_and_no_other() -> None:
    """An operator finds the paragraph by the name of the alert."""
    assert headings("Alerts") == [each["alert"] for each in ALERTS]
    found = codes()
    assert len(found) > 10
    assert sorted(headings("Codes")) == sorted(found | WARNINGS)


def test_the_spec_and_the_runbook_explain_the_same_failure_codes() -> None:
    """The spec's own table of failures."""
    table = (
        documents.load(documents.GATEWAY)["info"]["description"]
        .partition("**Why a sync failed**")[2]
        .partition("\n# ")[0]
    )
    assert set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", table)) == codes()


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_leads_to_its_paragraph(alert: dict[str, Any]) -> None:
    """Its severity is one of those in the guide."""
    path, _, anchor = alert["annotations"]["runbook"].partition("#")
    assert (TOP / path) == FOLDER / "runbook.md"
    assert anchor == alert["alert"].lower()
    assert f"| `{alert['labels']['severity']}` |" in GUIDE
    assert alert["annotations"]["summary"].endswith(".")


def test_counters_of_the_gateways_own_faults_start_at_zero() -> None:
    """increase() misses the first event of a series that starts with it."""
    (alert,) = (each["expr"] for each in ALERTS if each["alert"] == "ProductGatewaySyncsFailOnOurSide")
    assert set(re.findall(r'failure_code=~"([^"]+)"', alert)[0].split("|")) == set(FAULTS_OF_OURS)
    said = Metrics().exposition().decode()
    for code in FAULTS_OF_OURS:
        assert f'syncs_ended_total{{entity_type="PRODUCT",failure_code="{code}",status="FAILED"}} 0.0' in said


@pytest.mark.parametrize("name", ["README.md", "runbook.md"])
def test_links_commands_and_settings_exist(name: str) -> None:
    """An operator can copy every line."""
    text = (FOLDER / name).read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (FOLDER / link).is_file(), link
    for target in re.findall(r"\]\(#([^)]+)\)", text):
        assert target in {each.lower() for each in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}, target
    for setting in set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=\w+)?`", text)):
        assert setting.lower() in Settings.model_fields, setting
    for words in re.findall(r"(?:`|\$ )product-gateway ([^`#]+?)(?:`|#|$)", text, re.MULTILINE):
        command, rest = typer.main.get_command(app), words.split()
        while isinstance(command, typer.core.TyperGroup):
            command = command.commands[rest.pop(0)]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in rest if word.startswith("--")} <= known, words


@needs_promtool
def test_prometheus_understands_the_rules() -> None:
    """promtool accepts the file."""
    told = subprocess.run(
        [str(PROMTOOL), "check", "rules", str(FOLDER / "alerts.yaml")], capture_output=True, text=True, timeout=60
    )
    assert told.returncode == 0, told.stdout + told.stderr


FIRING = {
    "ProductGatewayDown": ({'up{job="product-gateway",instance="a"}': "0x20"}, "5m"),
    "ProductGatewayDatabaseAway": ({'product_gateway_database_up{instance="a"}': "1 0x20"}, "5m"),
    "ProductGatewayInternalErrors": ({'product_gateway_requests_total{status="500",operation="x"}': "_x9 1x20"}, "12m"),
    "ProductGatewayOverloaded": ({'product_gateway_requests_refused_total{reason="overload"}': "0+60x30"}, "20m"),
    "ProductGatewaySlow": (
        {
            f'product_gateway_request_duration_seconds_bucket{{le="{le}"}}': f"0+{n}x40"
            for le, n in (("1", 50), ("2.5", 100), ("+Inf", 100))
        },
        "30m",
    ),
    "ProductGatewaySyncsWait": ({"product_gateway_queue_oldest_seconds": "301x20"}, "10m"),
    "ProductGatewayNoWorker": ({"product_gateway_queue_depth": "3x20"}, "5m"),
    "ProductGatewaySyncsFailOnOurSide": (
        {'product_gateway_syncs_ended_total{failure_code="WORKER_LOST",status="FAILED"}': "0x5 1x20"},
        "8m",
    ),
    "ProductGatewaySyncsFail": (
        {
            'product_gateway_syncs_ended_total{status="FAILED"}': "0+2x60",
            'product_gateway_syncs_ended_total{status="SUCCEEDED"}': "0+1x60",
        },
        "50m",
    ),
    "ProductGatewayCatalogsStale": ({'product_gateway_catalogs_stale{entity_type="PRODUCT"}': "2x20"}, "10m"),
    "ProductGatewayWorkersAreLost": ({"product_gateway_lease_takeovers_total": "0+1x30"}, "20m"),
    "ProductGatewayLoopsFail": ({'product_gateway_loop_failures_total{loop="claims"}': "0x5 1x20"}, "8m"),
    "ProductGatewayProcessesEnd": ({'product_gateway_process_restarts_total{process="api"}': "0+1x30"}, "20m"),
    "ProductGatewayFewFilesLeft": (
        {'process_open_fds{job="product-gateway"}': "90x20", 'process_max_fds{job="product-gateway"}': "100x20"},
        "10m",
    ),
}
# The same names with what is well: no alert may come.
WELL = {
    'up{job="product-gateway",instance="a"}': "1x60",
    'product_gateway_database_up{instance="a"}': "1x60",
    'product_gateway_requests_total{status="500",operation="x"}': "1x60",
    'product_gateway_requests_refused_total{reason="overload"}': "0x60",
    'product_gateway_request_duration_seconds_bucket{le="1"}': "0+100x60",
    'product_gateway_request_duration_seconds_bucket{le="+Inf"}': "0+100x60",
    "product_gateway_queue_oldest_seconds": "20x60",
    "product_gateway_queue_depth": "3x60",
    "product_gateway_syncs_running": "1x60",
    'product_gateway_syncs_ended_total{failure_code="WORKER_LOST",status="FAILED"}': "0x60",
    'product_gateway_syncs_ended_total{failure_code="",status="SUCCEEDED"}': "0+5x60",
    'product_gateway_catalogs_stale{entity_type="PRODUCT"}': "0x60",
    "product_gateway_lease_takeovers_total": "0 1x60",
    'product_gateway_loop_failures_total{loop="claims"}': "0x60",
    'product_gateway_process_restarts_total{process="api"}': "0 1x60",
    'process_open_fds{job="product-gateway"}': "20x60",
    'process_max_fds{job="product-gateway"}': "100x60",
}


@needs_promtool
def test_each_alert_fires_in_its_case_and_none_in_a_healthy_system(tmp_path: Path) -> None:
    """Prometheus evaluates the rules over sample series."""
    assert set(FIRING) == {each["alert"] for each in ALERTS}

    def case(series: dict[str, str], at: str, alert: str, *, fires: bool) -> dict[str, Any]:
        given = [{"series": name, "values": values} for name, values in series.items()]
        asked = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)'
        wanted = [{"labels": "{}", "value": 1 if fires else 0}]
        return {
            "interval": "1m",
            "input_series": given,
            "promql_expr_test": [{"expr": asked, "eval_time": at, "exp_samples": wanted}],
        }

    cases = [case(series, at, name, fires=True) for name, (series, at) in FIRING.items()]
    cases += [case(WELL, "50m", name, fires=False) for name in FIRING]
    rules = {"rule_files": [str(FOLDER / "alerts.yaml")], "evaluation_interval": "1m", "tests": cases}
    (tmp_path / "cases.yaml").write_text(json.dumps(rules))
    told = subprocess.run(
        [str(PROMTOOL), "test", "rules", str(tmp_path / "cases.yaml")], capture_output=True, text=True, timeout=60
    )
    assert told.returncode == 0, told.stdout + told.stderr
