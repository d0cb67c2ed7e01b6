"""docs/metrics.md against real scrapes, both ways; the dashboard and the alerts against the page."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from central.settings import CentralSettings
from regional_gateway.settings import GatewaySettings
from tests.support.central_fixture import CentralRig, TinyModeler, begin
from tests.support.scraping import scraped_central, scraped_gateway
from tests.unit.regional_gateway.gateway_rig import Rig
from transport.events import MessageArrived

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "metrics.md").read_text()
PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARD = json.loads((GRAFANA / "dashboards" / "fedfleet.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
RULES = yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"][0]["rules"]
PROGRAMS = ("central", "gateway")
_UNITS = {"seconds", "bytes"}


class Measured(TinyModeler):
    accuracies = (0.5,)


def documented():
    """Return type and labels of every metric that the page lists, by name."""
    rows = re.findall(r"^\| `([\w*]+)` \| (\w+) \| (.*?) \|", PAGE, re.MULTILINE)
    found = {}
    for name, kind, labels in rows:
        if kind not in ("counter", "gauge", "histogram"):
            continue
        for program in PROGRAMS if "*" in name else ("",):
            full = name.replace("*", program)
            assert full not in found, full
            found[full] = (kind, frozenset(re.findall(r"`(\w+)`", labels)))
    return found


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Scrape a central and a gateway that have been through everything which has a label."""
    central = CentralRig(tmp_path_factory.mktemp("central"), Measured())
    gateway = Rig(tmp_path_factory.mktemp("gateway") / "state")
    programs = [
        scraped_central(central, metrics_device_labels=True),
        scraped_gateway(gateway, metrics_device_labels=True),
    ]
    job = begin(central, "a", "b", rounds=1)
    central.update("a", job)
    central.update("b", job)
    central.work()
    gateway.connect()
    (device,) = gateway.born("a")
    gateway.offer(device, b"update")
    gateway.receipt(device, b"update")
    for session, topic, program in (
        ("main", "fl/v1/gw/eu/up/state", central),
        ("downlink", "fl/v1/eu/a/up/state", gateway),
    ):
        program.events.put(MessageArrived(session, topic, b"?", False, lambda: None))
    pages = []
    for program in programs:
        program.loop.turn()
        pages.append(program.scrape())
        program.metrics.close()
    central.connection.close()
    gateway.close()
    return {
        name: (kind, frozenset(page.labels.get(name, ())))
        for page in pages
        for name, kind in page.types.items()
    }


def test_the_page_lists_every_metric_that_is_told_and_no_other(told):
    assert documented() == told


def test_every_metric_is_told_by_its_naming_conventions(told):
    for name, (kind, labels) in told.items():
        assert re.fullmatch(r"(fedfleet_(central|gateway)|process)_[a-z_]+", name)
        assert name.endswith("_total") == (kind == "counter")
        assert "_created" not in name
        assert not labels & {"job_name", "instance"}
        if kind == "histogram":
            assert name.endswith("_seconds")


def test_the_unit_of_a_metric_is_in_its_name():
    rows = re.findall(r"^\| `([\w*]+)` \| \w+ \| .*? \| (.*?) \|", PAGE, re.MULTILINE)
    for name, unit in rows:
        if unit in _UNITS:
            assert re.search(rf"_{unit}(_total)?$", name), name


def names_in(expression):
    """Return the metrics that an expression names, without the suffixes of a histogram."""
    found = re.findall(r"\b(?:fedfleet|process)_\w+", expression)
    known = documented()
    bases = (re.sub(r"_(bucket|sum|count)$", "", name) for name in found)
    return {name if name in known else base for name, base in zip(found, bases, strict=True)}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_panel_asks_for_metrics_that_there_are(expression):
    assert names_in(expression) <= set(documented())
    assert set(re.findall(r"\$\w+", expression)) <= {"$__rate_interval", "$__range", "$gateway"}


def test_every_example_and_every_alert_names_metrics_that_there_are():
    examples = re.findall(r"\| `([^`|]*)` \|$", PAGE, re.MULTILINE)
    assert len(examples) > 40
    for expression in (*examples, *(rule["expr"] for rule in RULES)):
        assert names_in(expression) <= set(documented()), expression


def test_every_documented_metric_of_general_interest_is_in_a_panel():
    shown = set().union(*map(names_in, EXPRESSIONS))
    optional = {name for name, (_, labels) in documented().items() if "device" in labels}
    kinds = {"rounds", "receipts", "wire_bytes", "duration_seconds", "devices", "outbox"}
    for name in set(documented()) - optional:
        if any(kind in name for kind in kinds):
            assert name in shown or "oldest" in name, name


def test_panels_have_ids_of_their_own_and_do_not_lie_on_one_another():
    ids = Counter(panel["id"] for panel in DASHBOARD["panels"])
    assert max(ids.values()) == 1
    cells = Counter(
        (x, y)
        for panel in DASHBOARD["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    )
    assert max(cells.values()) == 1
    assert max(x for x, _ in cells) < 24


def test_every_panel_says_what_it_shows_and_has_a_legend():
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]


def test_the_dashboard_asks_the_data_source_that_is_provisioned():
    provisioned = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())
    (source,) = provisioned["datasources"]
    variables = DASHBOARD["templating"]["list"]
    targets = [target for panel in PANELS for target in panel["targets"]]
    asked = {one["datasource"]["uid"] for one in (*PANELS, *targets, *variables)}
    assert asked == {source["uid"]}
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
    providers = yaml.safe_load((GRAFANA / "provisioning/dashboards/fedfleet.yml").read_text())
    assert providers["providers"][0]["options"]["path"] == "/var/lib/grafana/dashboards"


def test_every_alert_is_on_the_page_and_is_played_through():
    alerts = [rule["alert"] for rule in RULES]
    listed = re.findall(r"^\| `(\w+)` \| [^|]+ \|$", PAGE, re.MULTILINE)
    assert [name for name in listed if name[0].isupper()] == alerts
    tests = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())["tests"]
    fired = {
        one["alertname"]
        for test in tests
        for one in test.get("alert_rule_test", ())
        if one["exp_alerts"]
    }
    assert fired == set(alerts)


def test_the_settings_on_the_page_are_those_of_both_programs():
    listed = re.findall(r"^\| `(metrics_\w+)` \| `(--[\w-]+)` \| `(\w+)`", PAGE, re.MULTILINE)
    for settings in (CentralSettings, GatewaySettings):
        fields = {name for name in settings.model_fields if name.startswith("metrics_")}
        assert {name for name, _, _ in listed} == fields
    for name, flag, variable in listed:
        assert flag == "--" + name.replace("_", "-")
        assert variable == f"FEDFLEET_{name.upper()}"
