"""From a person's options to a run's folder: prepare, run, write what it gave."""

import json
import os
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from fedfleet import exporting
from fedfleet.errors import FleetError
from fedfleet.screen import Screen
from fedfleet.testbed import plot, report
from fedfleet.testbed.choices import BrokerKind, Options
from fedfleet.testbed.plan import Place, make_plan
from fedfleet.testbed.processes import Processes
from fedfleet.testbed.progress import Stopwatch
from fedfleet.testbed.report import Outcome
from fedfleet.testbed.run import Run

#: How long central may take to write its final model out.
_EXPORT_S = 60.0
#: Not on every user's PATH.
_SYSTEM_FOLDERS = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"


class PreparationError(FleetError):
    """This machine or this folder cannot carry the run; nothing was started."""


def run_demo(
    options: Options,
    folder: Path,
    screen: Screen,
    *,
    start_timeout_s: float,
    until_interrupted: Callable[[Outcome], None] | None = None,
) -> Outcome:
    """Run a fleet once and write what it gave into ``folder``.

    Args:
        options: What a person chose.
        folder: An empty or new folder.
        screen: Where progress is told.
        start_timeout_s: How long the processes may take to be born.
        until_interrupted: Told the outcome; then the fleet is left running until Ctrl-C.

    Raises:
        PlanError: The options contradict each other.
        FleetError: It did not work; the text says why, and whose log tells more.
    """
    watch = Stopwatch()
    place = Place(folder, free_port(), find_mosquitto(options.broker), is_root=os.geteuid() == 0)
    plan = make_plan(options, place, _files(options))
    claim(folder)
    with Processes(folder / "logs") as processes:
        run = Run(plan, place, processes, screen)
        screen.line(f"{plan.url}, {len(plan.members)} devices; logs are in {folder / 'logs'}")
        run.start()
        with run.connect() as client:
            run.wait_for_births(client, start_timeout_s)
            screen.line(f"everybody is up after {watch.seconds:.1f} s")
            outcome = run.train(client, watch.seconds)
            screen.block("writing the model and the picture")
            _write(outcome, place)
            if until_interrupted is not None:
                until_interrupted(outcome)
                run.idle(client)
    return outcome


def claim(folder: Path) -> None:
    """Make a run's folder.

    Raises:
        PreparationError: Something is in it already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        message = f"out: {folder} is not empty; a run needs a folder of its own"
        raise PreparationError(message)


def _files(options: Options) -> Sequence[Path]:
    if options.data != "har" or options.data_path is None:
        return ()
    return sorted(options.data_path.resolve().glob("*.npz"))


def find_mosquitto(broker: BrokerKind) -> str | None:
    """Return Mosquitto's path, or None for the embedded broker.

    Raises:
        PreparationError: It is not installed.
    """
    if broker != "mosquitto":
        return None
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), _SYSTEM_FOLDERS))
    found = shutil.which("mosquitto", path=path)
    if found is None:
        message = "broker: mosquitto is not installed; install it, or use --broker embedded"
        raise PreparationError(message)
    return found


def free_port() -> int:
    """Return a port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _write(outcome: Outcome, place: Place) -> None:
    folder, status = outcome.folder, outcome.status
    whole = status.model_copy(update={"history": outcome.rounds})
    (folder / "status.json").write_text(whole.model_dump_json(indent=2) + "\n")
    (folder / "result.json").write_text(json.dumps(report.as_object(outcome), indent=2) + "\n")
    state_dir, sha256 = place.central_state_dir, status.model_sha256 or ""
    exporting.await_files(state_dir, status.task, sha256, _EXPORT_S)
    for kind in exporting.KINDS:
        file = folder / f"model.{kind}"
        exporting.export_model(state_dir, status.task, kind, file)
    plot.save_plot(outcome.rounds, _title(outcome), folder / "plot.png")


def _title(outcome: Outcome) -> str:
    task = outcome.submission
    return f"{task['model']} on {task['data']}, {task['min_clients']} clients, {task['codec']}"
