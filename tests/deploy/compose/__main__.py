"""The testbed on a real Docker engine: ``python -m tests.deploy.compose``, as root.

Exit code 0: everything holds. 1: something does not. 77: Docker cannot run here, and why; with
REQUIRE_DEPLOY=1 that is a failure too. All state is in a folder of its own under WORK (default
/var/tmp) and is removed at the end; CACHE keeps what was fetched. Needs the standard library only.
"""

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

from tests.deploy.compose import bases, stages
from tests.deploy.compose.engine import Engine, check_tools
from tests.deploy.compose.fleet import Fleet
from tests.deploy.compose.report import Failure, Report, Skip

PROJECT = Path(__file__).resolve().parents[3]
SKIPPED = 77


def play(report, work, cache, *, is_torch_built):
    """Do everything once."""
    check_tools()
    plugins = bases.compose_plugin(cache)
    for base in (bases.PYTHON, bases.MOSQUITTO, bases.PROMETHEUS):
        bases.root_filesystem(base, cache)
    wheels = bases.wheelhouse(PROJECT, os.environ.get("TORCH", "torch==2.13.0"), cache)
    report.say(f"stand-ins and {len(list(wheels.iterdir()))} wheels are there")
    os.environ.pop("TORCH", None)
    with Engine(work / "docker", plugins) as engine:
        version = engine.docker("version", "--format", "{{.Server.Version}}").strip()
        report.say(f"Docker engine {version} runs in a network namespace of its own")
        engine.serve_wheels(wheels)
        fleet = Fleet(engine, PROJECT)
        _bring(engine, fleet, cache)
        stages.bake_file(fleet, report)
        stages.images(fleet, report, bases.python_image(PROJECT))
        if is_torch_built:
            stages.device_torch(fleet, report, PROJECT)
        try:
            _live(fleet, report)
        except Failure:
            _tell(fleet)
            raise
        finally:
            fleet.compose("down", "--volumes", "--timeout", "3", check=False)


def _live(fleet, report):
    stages.up(fleet, report)
    stages.confinement(fleet, report)
    stages.first_task(fleet, report)
    stages.prometheus(fleet, report)
    stages.kill_each(fleet, report)
    stages.cut_broker(fleet, report)
    stages.scale(fleet, report)
    stages.replace(fleet, report)
    stages.shut_down(fleet, report)
    report.say("not run: Grafana's container (no image without a registry), arm64 images")


def _bring(engine, fleet, cache):
    services = fleet.config()["services"]
    bases.bring(engine, bases.PYTHON, [bases.python_image(PROJECT)], cache)
    bases.bring(engine, bases.MOSQUITTO, [services["broker"]["image"]], cache)
    bases.bring(engine, bases.PROMETHEUS, [services["prometheus"]["image"]], cache)


def _tell(fleet):
    sys.stderr.write(fleet.compose("ps", "--all", check=False))
    sys.stderr.write(fleet.compose("logs", "--tail", "15", check=False))


def main():
    """Run it and tell the result; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-torch", action="store_true", help="do not build device-torch")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cache = Path(os.environ.get("CACHE", "/var/tmp/fedfleet-deploy-cache"))
    report = Report()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        place = os.environ.get("WORK", "/var/tmp")
        with tempfile.TemporaryDirectory(dir=place, prefix="fedfleet-deploy-") as work:
            play(report, Path(work), cache, is_torch_built=not options.no_torch)
    except Skip as why:
        is_required = os.environ.get("REQUIRE_DEPLOY") == "1"
        sys.stdout.write(f"{'FAILED (REQUIRE_DEPLOY=1)' if is_required else 'SKIP'}: {why}\n")
        return 1 if is_required else SKIPPED
    except Failure as failure:
        report.say(f"FAILED: {failure}")
        sys.stdout.write(f"{report.summary('failed')}\n")
        return 1
    report.say("the engine is gone, and its folder")
    sys.stdout.write(f"{report.summary('passed')}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
