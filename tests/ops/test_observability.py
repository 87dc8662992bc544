"""Alerts and the dashboard speak of metrics that exist, and every promise that a metric can show has its alert."""

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

import gateway.app  # with all refusals
import gateway.metrics
import workers.auditor
import workers.metrics
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
    """Every series that gateways and workers show, with its labels."""
    found = {}
    for module in (gateway.metrics, workers.metrics):
        for metric in vars(module).values():
            if isinstance(metric, MetricWrapperBase):
                [family] = metric.describe()
                for ending in ENDINGS[family.type]:
                    bucket = {"le"} if ending == "_bucket" else set()
                    found[family.name + ending] = {*metric._labelnames, *bucket, *SCRAPED}
    return found


SERIES = _series()


def _panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def _plain(query: str) -> str:
    """A query as Prometheus gets it, with Grafana's variables filled in."""
    return query.replace("$__rate_interval", "1m").replace("$sale", ".*")


QUERIES = {
    **{rule["alert"]: rule["expr"] for rule in RULES},
    **{f"{panel['title']}, {one['refId']}": _plain(one["expr"]) for panel in _panels() for one in panel["targets"]},
}


def names(query: str) -> set[str]:
    return set(re.findall(r"\bfloodgate_\w+", query))


def selectors(query: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Each series that is asked for by labels, with the labels' values."""
    for name, inner in re.findall(r"\b(\w+)\{([^}]*)\}", query):
        yield name, dict(re.findall(r'(\w+)=~?"([^"]*)"', inner))


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_queries_ask_for_what_there_is(query: str) -> None:
    assert names(query) or "up{" in query
    assert names(query) - SERIES.keys() == set()
    for name, labels in selectors(query):
        assert labels.keys() <= SERIES.get(name, SCRAPED), name
    grouped = {label.strip() for part in re.findall(r"\bby \(([^)]*)\)", query) for label in part.split(",")}
    assert grouped <= set().union(*(SERIES[name] for name in names(query)))


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {name for panel in _panels() for one in panel["targets"] for name in names(one["expr"])}
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in SERIES}
    assert families - {re.sub(r"_(bucket|count|sum)$", "", name) for name in shown} == set()


def test_outcomes_jobs_and_promises_are_called_as_they_are() -> None:
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


def test_every_promise_that_shows_has_an_alert() -> None:
    promised = {rule["labels"].get("promise") for rule in RULES} - {None}
    assert promised == {f"P{number}" for number in range(1, 11)}
    by_audit = {labels["promise"] for rule in RULES for _, labels in selectors(rule["expr"]) if "promise" in labels}
    assert by_audit == set(workers.auditor._PROMISES)


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    notes = rule["annotations"]
    assert notes.keys() == {"summary", "description", "runbook_url"}
    assert len(notes["summary"]) < 120
    assert notes["description"].endswith(".")
    anchor = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", rule["alert"]).lower()
    assert notes["runbook_url"] == f"docs/operations.md#{anchor}"


OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def _anchor(heading: str) -> str:
    """As GitHub makes it of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_alert_has_its_section_in_the_runbook() -> None:
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


def test_the_operator_is_told_of_every_metric() -> None:
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in SERIES}
    assert families - set(re.findall(r"^\| `(floodgate_\w+)` \|", OPERATIONS, re.MULTILINE)) == set()


def test_no_name_is_used_twice() -> None:
    alerts = [rule["alert"] for rule in RULES]
    assert len(set(alerts)) == len(alerts)
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_every_alert_is_made_to_fire_by_a_rule_test() -> None:
    text = (PROMETHEUS / "alerts_test.yml").read_text(encoding="utf-8")
    fired = set(re.findall(r'alertname="(\w+)"', text))
    assert fired == {rule["alert"] for rule in RULES}


def test_the_dashboard_goes_by_its_variables() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables.keys() == {"datasource", "sale"}
    assert names(variables["sale"]["query"]["query"]) <= SERIES.keys()
    for panel in _panels():
        for holder in (panel, *panel["targets"]):
            assert holder["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        for target in panel["targets"]:
            of_a_sale = any("sale" in SERIES[name] for name in names(target["expr"]))
            assert of_a_sale == ('sale=~"$sale"' in target["expr"]), panel["title"]


def test_panels_do_not_lie_on_each_other() -> None:
    places = [(panel["title"], panel["gridPos"]) for panel in DASHBOARD["panels"]]
    assert all(place["x"] + place["w"] <= 24 for _, place in places)
    for (one, a), (other, b) in combinations(places, 2):
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, (one, other)


def _promtool(*arguments: str | Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_rules_and_the_configuration() -> None:
    _promtool("check", "rules", PROMETHEUS / "alerts.yml")
    _promtool("check", "config", PROMETHEUS / "prometheus.yml")


def test_the_rules_fire_when_they_should_and_only_then() -> None:
    _promtool("test", "rules", PROMETHEUS / "alerts_test.yml")


def test_prometheus_understands_the_dashboard(tmp_path: Path) -> None:
    """Each query as a rule of its own, since promtool checks nothing but rules."""
    queries = [_plain(one["expr"]) for panel in _panels() for one in panel["targets"]]
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    _promtool("check", "rules", file)
