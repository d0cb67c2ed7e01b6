"""One run of a whole fleet: start, wait for the births, submit, follow to the end."""

import json
import socket
import time

from fedfleet.client import FleetClient, open_client
from fedfleet.errors import FleetError
from fedfleet.screen import Screen
from fedfleet.statuses import round_line
from fedfleet.testbed.plan import Place, Plan, mosquitto_config
from fedfleet.testbed.processes import Processes
from fedfleet.testbed.progress import Progress, Stopwatch, name
from fedfleet.testbed.report import Outcome
from schemas.topics import PREFIX, Kind, Topic, state_filter, status_filter
from transport.settings import ConnectionSettings

_POLL_S = 0.1
_BROKER_TIMEOUT_S = 20.0
_PORT_POLL_S = 0.02
_JOB_FILTER = f"{PREFIX}/+/+/{Kind.JOB_STATUS.value.format(task='+')}"


class RunError(FleetError):
    """The fleet did not come up, or the task did not complete."""


class Run:
    """One run; its processes live as long as the ``Processes`` given."""

    def __init__(self, plan: Plan, place: Place, processes: Processes, screen: Screen) -> None:
        self._plan = plan
        self._place = place
        self._processes = processes
        self._screen = screen
        self._progress = Progress(plan)

    def start(self) -> None:
        """Start the broker, and when it listens all the others.

        Raises:
            RunError: The broker does not listen in time.
            ProcessEndedError: It ended.
        """
        if self._place.mosquitto is not None:
            self._place.mosquitto_config.write_text(mosquitto_config(self._place))
        self._processes.start(self._plan.broker)
        self.wait_for_port()
        for process in self._plan.services:
            self._processes.start(process)

    def connect(self) -> FleetClient:
        """Return a client that sees the whole fleet."""
        settings = ConnectionSettings.load(
            broker=self._plan.url, mqtt_protocol=self._plan.protocol
        )
        filters = (status_filter(), state_filter(), Topic(Kind.CENTRAL_STATE).name, _JOB_FILTER)
        return open_client(settings, filters)

    def wait_for_births(self, client: FleetClient, timeout_s: float) -> None:
        """Wait until central, every gateway and every device is online.

        Raises:
            RunError: Somebody is missing after ``timeout_s``.
            ProcessEndedError: A process ended meanwhile.
        """
        watch = Stopwatch()
        while missing := self._progress.missing():
            if watch.seconds > timeout_s:
                message = f"not up after {timeout_s:g} s: {name(missing, len(missing))}"
                raise RunError(message)
            self._step(client)
            self._screen.block(self._progress.start_block())

    def train(self, client: FleetClient, start_seconds: float) -> Outcome:
        """Submit the task and follow it to its end.

        Raises:
            RunError: The task ended otherwise than completed.
            ProcessEndedError: A process ended meanwhile.
        """
        watch = Stopwatch()
        client.publish(Topic(Kind.TASK_SUBMIT), json.dumps(self._plan.submission).encode())
        while (status := self._progress.status) is None or not status.is_final:
            self._step(client)
            self._screen.block(self._progress.block())
        if status.state != "completed":
            message = f"the task is {status.state}: {status.reason or 'central gave no reason'}"
            raise RunError(message)
        rounds = tuple(item for _, item in sorted(self._progress.rounds.items()))
        return Outcome(
            status, rounds, watch.seconds, start_seconds, self._place.folder, self._plan.submission
        )

    def idle(self, client: FleetClient) -> None:
        """Let the fleet run until this program is interrupted or a process ends."""
        while True:
            self._step(client)

    def _step(self, client: FleetClient) -> None:
        self._processes.check()
        message = client.next_message(_POLL_S)
        while message is not None:
            for summary in self._progress.take(message):
                parameters = self._progress.status.parameters if self._progress.status else 0
                self._screen.line(round_line(summary, parameters))
            message = client.next_message(0)

    def wait_for_port(self) -> None:
        """Wait until the broker listens.

        Raises:
            RunError: It does not in time.
            ProcessEndedError: It ended.
        """
        watch = Stopwatch()
        while watch.seconds < _BROKER_TIMEOUT_S:
            self._processes.check()
            with socket.socket() as probe:
                probe.settimeout(_POLL_S)
                if probe.connect_ex(("127.0.0.1", self._place.port)) == 0:
                    return
            time.sleep(_PORT_POLL_S)
        message = f"the broker does not listen after {_BROKER_TIMEOUT_S:g} s"
        raise RunError(message)
