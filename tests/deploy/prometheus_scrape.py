"""``make prometheus-test``: a real Prometheus scrapes a real fleet that trains.

It starts a broker, central, two gateways and four devices, and Debian's Prometheus with
``deploy/prometheus/prometheus.yml``, whose targets become ports of this machine. A task is
trained; then every expression of the Grafana dashboard is asked of that Prometheus, as Grafana
would ask, and must return numbers. ``promtool`` checks metrics, configuration and alerts; at the
end central is killed, and its alarm goes off. Exit code 0: all of it; 1: not; 77: it cannot run
here.
"""

# ruff: noqa: T201 - a script: it prints, reads clocks, starts programs

import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, NoReturn

import yaml

from tests.support.brokers import free_port
from tests.support.fleet import Fleet, Shape, running_fleet

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
CONFIG = DEPLOY / "prometheus" / "prometheus.yml"
RULES = DEPLOY / "prometheus" / "rules.yml"
RULES_TEST = DEPLOY / "prometheus" / "rules_test.yml"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "fedfleet.json"
METRICS_PAGE = DEPLOY.parent / "docs" / "metrics.md"
REGIONS = ("eu", "us")
TASK = {
    "task": "watched",
    "model": "mlp",
    "data": "digits",
    "rounds": 200,
    "min_clients": 4,
    "cohort": 4,
    "codec": "int8",
    "training": {"epochs": 2, "batch_size": 16},
}
SKIPPED = 77
_WAIT_S = 60.0
_TASK_S = 240.0
_STEP_S = 5
#: What Grafana makes of $__rate_interval: four times the data source's ``timeInterval``.
_RATE_INTERVAL_S = 4 * 5


class CheckError(Exception):
    """Something is not as it should be."""


def main() -> int:
    """Run all of it; return the exit code."""
    missing = [name for name in ("prometheus", "promtool", "mosquitto") if not _which(name)]
    if missing:
        print(f"SKIP: {', '.join(missing)} not found; apt-get install prometheus mosquitto")
        return SKIPPED
    try:
        _check_rules()
        with tempfile.TemporaryDirectory(prefix="fedfleet-prometheus-") as folder:
            _run(Path(folder))
    except CheckError as error:
        print(f"FAILED: {error}")
        return 1
    print("PASS")
    return 0


def _run(folder: Path) -> None:
    ports = {name: free_port() for name in ("central", *(f"gateway-{r}" for r in REGIONS))}
    shape = Shape(regions=REGIONS, central=("--eval-data", "digits"))
    began_s = time.time()
    with running_fleet(folder, shape, prepare=lambda fleet: _tell(fleet, ports)) as fleet:
        _say(began_s, "the fleet is up")
        for name, port in ports.items():
            _promtool("check", "metrics", text=_get(f"http://127.0.0.1:{port}/metrics"))
            _say(began_s, f"promtool finds nothing to say about the metrics of {name}")
        with _prometheus(folder, ports) as server:
            server.wait_for_targets(len(ports) + 1)
            _say(began_s, "all targets are up")
            _train(fleet, server)
            _say(began_s, "the task is completed")
            _ask_all(server, began_s)
            _ask_examples(server, began_s)
            server.check_rules()
            _say(began_s, "every rule is evaluated, none fires")
            fleet.kill("central")
            server.wait(lambda: "CentralDown" in server.alerts(), "the alert CentralDown")
            _say(began_s, "central was killed, and CentralDown is on its way")


def _tell(fleet: Fleet, ports: dict[str, int]) -> None:
    for name, port in ports.items():
        fleet.program(name).command += ["--metrics-port", str(port)]


def _train(fleet: Fleet, server: "Server") -> None:
    """Train one task; messages that break the contract are refused meanwhile."""
    fleet.publish(f"fl/v1/gw/{REGIONS[0]}/up/state", b"nonsense")
    fleet.publish(f"fl/v1/{REGIONS[0]}/d1/up/state", b"nonsense")
    fleet.submit(TASK)
    refused = "sum(increase(fedfleet_central_messages_refused_total[1m]))"
    fleet.wait_for(str(TASK["task"]), lambda status: status["committed"] >= 1, _TASK_S)
    fleet.publish(f"fl/v1/gw/{REGIONS[0]}/up/state", b"more nonsense")
    fleet.publish(f"fl/v1/{REGIONS[0]}/d1/up/state", b"more nonsense")
    fleet.complete(str(TASK["task"]), _TASK_S)
    server.wait(lambda: server.numbers(refused, time.time() - 60.0) > 0, "a refused message")


def _ask_all(server: "Server", began_s: float) -> None:
    """Ask every expression of the dashboard as Grafana would; each must return numbers."""
    dashboard = json.loads(DASHBOARD.read_text())
    (variable,) = dashboard["templating"]["list"]
    gateways = server.variable(variable["query"]["query"])
    if len(gateways) != len(REGIONS):
        message = f"the variable {variable['name']} offers {gateways}"
        raise CheckError(message)
    asked = 0
    for choice in (variable["allValue"], _escaped(gateways[0])):
        empty = []
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                asked += 1
                expression = _filled(target["expr"], variable["name"], choice, began_s)
                if not server.numbers(expression, began_s):
                    empty.append(f"{panel['title']}: {expression}")
        if empty:
            message = "no data for\n  " + "\n  ".join(empty)
            raise CheckError(message)
    _say(began_s, f"{asked} expressions of the dashboard return data")


def _ask_examples(server: "Server", began_s: float) -> None:
    """Ask every example of the page on metrics; some alarms among them are right to be silent."""
    examples = re.findall(r"\| `([^`|]*)` \|$", METRICS_PAGE.read_text(), re.MULTILINE)
    answered = sum(server.numbers(example, began_s) > 0 for example in examples)
    if not answered:
        message = f"none of {len(examples)} examples of {METRICS_PAGE.name} returns data"
        raise CheckError(message)
    _say(began_s, f"{len(examples)} examples of the page are valid, {answered} return data")


def _escaped(value: str) -> str:
    """Return a chosen value as Grafana writes it into a regular expression in a string."""
    return re.escape(value).replace("\\", "\\\\")


def _filled(expression: str, name: str, choice: str, began_s: float) -> str:
    """Put in what Grafana would."""
    values = {
        f"${name}": choice,
        "$__rate_interval": f"{_RATE_INTERVAL_S}s",
        "$__range": f"{math.ceil(time.time() - began_s)}s",
    }
    for variable, value in values.items():
        expression = expression.replace(variable, value)
    if "$" in expression:
        message = f"a variable is not known: {expression}"
        raise CheckError(message)
    return expression


class Server:
    """A running Prometheus."""

    def __init__(self, port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
        """Speak to it at a port of this machine."""
        self._url = f"http://127.0.0.1:{port}/api/v1"
        self._process = process
        self._log = log

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds."""
        until_s = time.monotonic() + _WAIT_S
        while time.monotonic() < until_s:
            if self._process.poll() is not None:
                self._fail("Prometheus has ended")
            try:
                if condition():
                    return
            except OSError:
                pass  # not listening yet
            time.sleep(0.2)
        self._fail(f"not within {_WAIT_S:g} s: {what}")

    def wait_for_targets(self, count: int) -> None:
        """Wait until so many targets were scraped, and all of them are up."""

        def are_up() -> bool:
            targets = self._ask("targets")["activeTargets"]
            return len(targets) == count and all(one["health"] == "up" for one in targets)

        self.wait(are_up, f"{count} targets up")

    def numbers(self, expression: str, since_s: float) -> int:
        """Return how many numbers an expression gives over the time since then."""
        window = {"start": since_s, "end": time.time(), "step": _STEP_S}
        found = self._ask("query_range", query=expression, **window)["result"]
        values = [float(value) for series in found for _, value in series["values"]]
        return sum(math.isfinite(value) for value in values)

    def variable(self, query: str) -> list[str]:
        """Return what a variable of a dashboard offers."""
        fits = re.fullmatch(r"label_values\((\w+), (\w+)\)", query)
        if fits is None:
            message = f"not a query of a variable: {query}"
            raise CheckError(message)
        return list(self._ask(f"label/{fits[2]}/values", **{"match[]": fits[1]}))

    def alerts(self) -> set[str]:
        """Return the names of alerts that are pending or fire."""
        return {one["labels"]["alertname"] for one in self._ask("alerts")["alerts"]}

    def check_rules(self) -> None:
        """Expect that every rule is evaluated without an error, and that no alert fires."""
        rules = [rule for group in self._ask("rules")["groups"] for rule in group["rules"]]
        ill = [rule["name"] for rule in rules if rule["health"] != "ok"]
        if ill or not rules or self.alerts():
            message = f"rules: {len(rules)}, with errors: {ill}, firing: {self.alerts()}"
            raise CheckError(message)

    def _ask(self, path: str, **query: object) -> Any:
        answer = json.loads(_get(f"{self._url}/{path}?{urllib.parse.urlencode(query)}"))
        return answer["data"]

    def _fail(self, text: str) -> NoReturn:
        message = f"{text}; its log:\n{self._log.read_text()[-2000:]}"
        raise CheckError(message)


@contextmanager
def _prometheus(folder: Path, ports: dict[str, int]) -> Iterator[Server]:
    port = free_port()
    config = folder / "prometheus.yml"
    config.write_text(_localized(CONFIG.read_text(), ports, port))
    shutil.copy(RULES, folder)
    _promtool("check", "config", str(config))
    log = folder / "prometheus.log"
    command = (
        *(
            _which("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
        ),
        *(f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"),
    )
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
    try:
        yield Server(port, process, log)
    finally:
        process.terminate()
        process.wait(_WAIT_S)


def _localized(config: str, ports: dict[str, int], own_port: int) -> str:
    """Return the configuration with the ports of this machine for the names of containers."""
    places = {f"{name}:9108": port for name, port in ports.items()} | {"localhost:9090": own_port}
    parsed = yaml.safe_load(config)
    for job in parsed["scrape_configs"]:
        for group in job["static_configs"]:
            group["targets"] = [f"127.0.0.1:{places.pop(name)}" for name in group["targets"]]
    if places:
        message = f"prometheus.yml does not scrape {', '.join(places)}"
        raise CheckError(message)
    return str(yaml.safe_dump(parsed))


def _check_rules() -> None:
    _promtool("check", "config", str(CONFIG))
    _promtool("check", "rules", str(RULES))
    _promtool("test", "rules", str(RULES_TEST))


def _promtool(*arguments: str, text: str | None = None) -> None:
    done = subprocess.run(
        [_which("promtool"), *arguments],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        cwd=RULES_TEST.parent,
    )
    if done.returncode != 0 or (text is not None and (done.stdout + done.stderr).strip()):
        message = f"promtool {' '.join(arguments)}: {done.stdout}{done.stderr}"
        raise CheckError(message)


def _get(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=10.0) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.SERVICE_UNAVAILABLE:
            raise  # it listens, and is not ready yet: waited for like a refused connection
        message = f"{urllib.parse.unquote_plus(url)}: {error} {error.read().decode()}"
        raise CheckError(message) from error


def _which(name: str) -> str:
    places = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/usr/local/sbin"
    return shutil.which(name) or shutil.which(name, path=places) or ""


def _say(began_s: float, text: str) -> None:
    print(f"{time.time() - began_s:6.1f} s  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
