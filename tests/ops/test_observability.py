"""Alerts and dashboard use existing metrics, and every measurable promise has an alert."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

import gateway.app  # with all problems
import gateway.metrics
import workers.auditor
import workers.metrics
from commerce.audit.model import PROMISES
from commerce.kernel.errors import ProblemError

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "config" / "prometheus"
DASHBOARD = json.loads((ROOT / "config" / "grafana" / "floodgate.json").read_text(encoding="utf-8"))
CONFIG = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
ENDINGS = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
SCRAPED = {"job", "instance"}
"""labels that Prometheus adds"""


def _series() -> dict[str, set[str]]:
    """Return all series of gateways and workers with their labels."""
    series = {}
    for module in (gateway.metrics, workers.metrics):
        for metric in vars(module).values():
            if isinstance(metric, MetricWrapperBase):
                [family] = metric.describe()
                for ending in ENDINGS[family.type]:
                    bucket = {"le"} if ending == "_bucket" else set()
                    series[family.name + ending] = {*metric._labelnames, *bucket, *SCRAPED}
    return series


SERIES = _series()


def _panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def _fill_variables(query: str) -> str:
    """Return a query as Prometheus gets it, with Grafana's variables filled in."""
    return query.replace("$__rate_interval", "1m").replace("$sale", ".*")


QUERIES = {
    **{rule["alert"]: rule["expr"] for rule in RULES},
    **{
        f"{panel['title']}, {target['refId']}": _fill_variables(target["expr"])
        for panel in _panels()
        for target in panel["targets"]
    },
}


def names(query: str) -> set[str]:
    return set(re.findall(r"\bfloodgate_\w+", query))


def selectors(query: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each series that a query selects by labels, with the labels' values."""
    for name, inner in re.findall(r"\b(\w+)\{([^}]*)\}", query):
        yield name, dict(re.findall(r'(\w+)=~?"([^"]*)"', inner))


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_query_uses_existing_metrics_and_labels(query: str) -> None:
    assert names(query) or "up{" in query
    assert names(query) - SERIES.keys() == set()
    for name, labels in selectors(query):
        assert labels.keys() <= SERIES.get(name, SCRAPED), name
    grouped = {label.strip() for part in re.findall(r"\bby \(([^)]*)\)", query) for label in part.split(",")}
    assert grouped <= set().union(*(SERIES[name] for name in names(query)))


def test_dashboard_shows_every_metric() -> None:
    shown = {name for panel in _panels() for target in panel["targets"] for name in names(target["expr"])}
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in SERIES}
    assert families - {re.sub(r"_(bucket|count|sum)$", "", name) for name in shown} == set()


def test_alert_selectors_use_existing_values() -> None:
    codes, kinds = {"accepted", "replayed"}, [ProblemError]
    while kinds:
        kind = kinds.pop()
        codes.add(kind.code)
        kinds += kind.__subclasses__()
    jobs = {job["job_name"] for job in CONFIG["scrape_configs"]}
    for rule in RULES:
        for _, labels in selectors(rule["expr"]):
            assert labels.get("outcome", "accepted") in codes
            assert labels.get("job", "floodgate-gateway") in jobs
            assert labels.get("promise") in (None, rule["labels"].get("promise"))


def test_alerts_cover_every_measurable_promise() -> None:
    promised = {rule["labels"].get("promise") for rule in RULES} - {None}
    assert promised == {f"P{number}" for number in range(1, 11)}
    by_audit = {labels["promise"] for rule in RULES for _, labels in selectors(rule["expr"]) if "promise" in labels}
    assert by_audit == set(PROMISES)


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_alert_has_severity_summary_description_and_runbook(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    annotations = rule["annotations"]
    assert annotations.keys() == {"summary", "description", "runbook_url"}
    assert len(annotations["summary"]) < 120
    assert annotations["description"].endswith(".")
    anchor = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", rule["alert"]).lower()
    assert annotations["runbook_url"] == f"docs/operations.md#{anchor}"


OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def _anchor(heading: str) -> str:
    """Return the anchor that GitHub creates for a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_runbook_has_section_of_every_alert() -> None:
    headings = [_anchor(heading) for heading in re.findall(r"^#+ (.+)$", OPERATIONS, re.MULTILINE)]
    assert len(set(headings)) == len(headings)
    wanted = {rule["annotations"]["runbook_url"].removeprefix("docs/operations.md#") for rule in RULES}
    assert wanted == {heading for heading in headings if heading.startswith("floodgate-")}
    sections = dict(re.findall(r"^### (Floodgate .+)\n((?:(?!#).*\n)*)", OPERATIONS, re.MULTILINE))
    assert {_anchor(heading) for heading in sections} == wanted
    for rule in RULES:
        [text] = [text for heading, text in sections.items() if _anchor(heading) in rule["annotations"]["runbook_url"]]
        assert text.strip().startswith(rule["labels"]["severity"]), rule["alert"]
        assert rule["labels"].get("promise", "") in text, rule["alert"]
        assert all(f"**{part}:**" in text for part in ("Look", "Do", "Do not")), rule["alert"]


def test_operations_document_lists_every_metric() -> None:
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in SERIES}
    assert families - set(re.findall(r"^\| `(floodgate_\w+)` \|", OPERATIONS, re.MULTILINE)) == set()


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.stem)
def test_document_names_alerts_that_exist(page: Path) -> None:
    named = set(re.findall(r"\bFloodgate[A-Z]\w+", page.read_text(encoding="utf-8")))
    assert named - {rule["alert"] for rule in RULES} == set()


def test_alert_and_panel_names_are_unique() -> None:
    alerts = [rule["alert"] for rule in RULES]
    assert len(set(alerts)) == len(alerts)
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_rule_tests_make_every_alert_fire() -> None:
    text = (PROMETHEUS / "alerts_test.yml").read_text(encoding="utf-8")
    fired = set(re.findall(r'alertname="(\w+)"', text))
    assert fired == {rule["alert"] for rule in RULES}


def test_dashboard_queries_use_its_variables() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables.keys() == {"datasource", "sale"}
    assert names(variables["sale"]["query"]["query"]) <= SERIES.keys()
    for panel in _panels():
        for holder in (panel, *panel["targets"]):
            assert holder["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        for target in panel["targets"]:
            of_a_sale = any("sale" in SERIES[name] for name in names(target["expr"]))
            assert of_a_sale == ('sale=~"$sale"' in target["expr"]), panel["title"]


def test_dashboard_panels_do_not_overlap() -> None:
    places = [(panel["title"], panel["gridPos"]) for panel in DASHBOARD["panels"]]
    assert all(place["x"] + place["w"] <= 24 for _, place in places)
    for (title, a), (other_title, b) in combinations(places, 2):
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, (title, other_title)


def _promtool(*arguments: str | Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    process = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr


def test_prometheus_accepts_rules_and_configuration() -> None:
    _promtool("check", "rules", PROMETHEUS / "alerts.yml")
    _promtool("check", "config", PROMETHEUS / "prometheus.yml")


def test_rules_pass_their_rule_tests() -> None:
    _promtool("test", "rules", PROMETHEUS / "alerts_test.yml")


def test_prometheus_accepts_dashboard_queries(tmp_path: Path) -> None:
    """Each query is checked as a rule, since promtool checks nothing but rules."""
    queries = [_fill_variables(target["expr"]) for panel in _panels() for target in panel["targets"]]
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    _promtool("check", "rules", file)
