"""Many devices in one process: ``python -m benchmarks.soak_devices``.

Each is a real agent (its database, its loop, its session) on threads of its own; only training is
played: a small random update that depends on the round's seed alone, so that the global model is
another one after every round.
"""

import queue
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import click
import numpy as np

from device_agent.adapters.data_sources import load_data
from device_agent.adapters.job_run import JobRun
from device_agent.adapters.machine import LocalMachine
from device_agent.adapters.optimizer_states import OptimizerStates
from device_agent.adapters.store import open_store
from device_agent.adapters.worker import TrainingWorker
from device_agent.app import DATABASE, STATES, Device, compose
from device_agent.core.policy import LocalPolicy
from device_agent.service.ports import Trainer, TrainingRequest, TrainingResult
from device_agent.settings import DeviceSettings
from fedfleet import logs
from learning.data.dataset import Dataset
from schemas.messages import TrainingPlan
from schemas.topics import device_filters
from transport.loop import ServiceLoop, steady_clock
from transport.objects import ObjectStore
from transport.session import PahoSession

_STEP = 1e-3
_SWITCH_INTERVAL_S = 0.0005


class PlayedTrainer:
    """Trains nothing, and sends something."""

    backend = "torch"

    def train(
        self,
        request: TrainingRequest,
        progress: Callable[[float], None],
        should_stop: Callable[[], bool],  # noqa: ARG002 - the trainer's port
    ) -> TrainingResult:
        """Return a small random update; the same for the same round and device."""
        progress(1.0)
        rng = np.random.default_rng(request.round_seed)
        delta = rng.normal(0.0, _STEP, request.layout.size).astype(np.float32)
        return TrainingResult(delta, num_examples=max(1, len(request.data)))


def _trainer_for(_plan: TrainingPlan, _backend: str) -> Trainer:
    return PlayedTrainer()


class PlayedDevice:
    """One agent on a thread of its own."""

    def __init__(self, settings: DeviceSettings, data: dict[str, Dataset]) -> None:
        self._settings = settings
        self._data = data
        self._loop: ServiceLoop | None = None
        self._thread = threading.Thread(target=self._serve, name=settings.id, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Say farewell and end."""
        if self._loop is not None:
            self._loop.stop()
        self._thread.join(10.0)

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._thread.is_alive()

    def _serve(self) -> None:
        settings = self._settings
        events: queue.SimpleQueue[object] = queue.SimpleQueue()
        objects = ObjectStore(settings.state_dir)
        scratch = settings.state_dir / "parts"
        worker = TrainingWorker(
            JobRun(
                settings.id,
                self._data,
                objects,
                _trainer_for,
                scratch,
                OptimizerStates(settings.state_dir / STATES, settings.optimizer_state_bytes),
            ),
            events,
        )
        session = PahoSession(
            settings.broker,
            name="main",
            mqtt_client_id=f"fedfleet-dev-{settings.id}",
            filters=device_filters(settings.region, settings.id),
            events=events,
            protocol=settings.mqtt_protocol,
        )
        clock = steady_clock()
        with closing(open_store(settings.state_dir / DATABASE)) as connection:
            machine = LocalMachine(("torch",))
            device = Device(
                settings, self._data, LocalPolicy(), connection, objects, machine, worker
            )
            rng = np.random.default_rng()
            agent = compose(device, clock, rng, lambda will: setattr(session, "will", will))
            self._loop = ServiceLoop(connection, events, {"main": session}, agent, clock)
            session.start()
            self._loop.run()
            session.stop(agent.farewell())
            worker.close()


@click.command()
@click.option("--broker", required=True)
@click.option("--folder", type=click.Path(path_type=Path), required=True)
@click.option("--devices", type=click.IntRange(1), required=True)
@click.option("--regions", type=click.IntRange(1), required=True)
def main(broker: str, folder: Path, devices: int, regions: int) -> None:
    """Run devices ``device-1`` ... until SIGTERM; they are dealt to the regions in turn."""
    logs.configure("warning", "json")
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    data = load_data(("digits",), f"1/{devices}", None, 0)
    fleet = [
        PlayedDevice(
            DeviceSettings.load(
                broker=broker,
                mqtt_protocol="5",
                region=f"region-{index % regions + 1}",
                id=f"device-{index + 1}",
                state_dir=folder / f"device-{index + 1}",
            ),
            data,
        )
        for index in range(devices)
    ]
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    for device in fleet:
        device.start()
    while not ended.wait(1.0):
        if not all(device.is_alive for device in fleet):
            raise SystemExit(1)
    for device in fleet:
        device.stop()


if __name__ == "__main__":
    main()
