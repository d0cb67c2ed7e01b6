"""The same round with nothing but paho: no receipts, no disk, no checks, one hop less.

The server broadcasts a model, every client answers with as many bytes, the server adds the
answers up and starts the next round at once. Run as ``python -m benchmarks.plain_paho``.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
from paho.mqtt.client import Client, MQTTMessage

from benchmarks.clients import subscriber
from fedfleet.testbed.plan import Process
from fedfleet.testbed.processes import Processes

#: LeNet-5 for ten classes.
PARAMETERS = 61_706
_MODEL = "bench/model"
_ANSWER = "bench/answer/{}"
_READY = "bench/ready/{}"
_TIMEOUT_S = 120.0


def measure(folder: Path, port: int, clients: int, rounds: int) -> list[float]:
    """Return the seconds of each round, with one server and some client processes.

    Raises:
        subprocess.SubprocessError: The server failed or took too long.
    """
    program = (sys.executable, "-m", "benchmarks.plain_paho")
    with Processes(folder / "logs") as processes:
        for index in range(clients):
            client_argv = (*program, "client", str(port), str(index))
            processes.start(Process(f"plain-{index + 1}", client_argv))
        server_argv = (*program, "server", str(port), str(clients), str(rounds))
        done = subprocess.run(server_argv, check=True, capture_output=True, timeout=_TIMEOUT_S)
    durations: list[float] = json.loads(done.stdout)
    return durations


class Server:
    """Broadcasts, adds up, and notes when each round ended."""

    def __init__(self, client: Client, clients: int, rounds: int) -> None:
        self.durations: list[float] = []
        self._client = client
        self._clients = clients
        self._rounds = rounds
        self._ready: set[str] = set()
        self._answers = 0
        self._began_s = 0.0
        self._model = np.random.default_rng(0).normal(size=PARAMETERS).astype(np.float32)
        self._total = np.zeros(PARAMETERS, np.float32)
        client.on_message = self._on_message

    def _on_message(self, _client: Client, _userdata: object, message: MQTTMessage) -> None:
        if message.topic.startswith(_READY.format("")):
            self._ready.add(message.topic)
            if len(self._ready) == self._clients:
                self._broadcast()
            return
        self._total += np.frombuffer(message.payload, np.float32)
        self._answers += 1
        if self._answers == self._clients:
            self._end_round()

    def _end_round(self) -> None:
        self._model = self._total / np.float32(self._clients)
        self._total[:] = 0
        self._answers = 0
        self.durations.append(time.perf_counter() - self._began_s)
        if len(self.durations) < self._rounds:
            self._broadcast()
        else:
            self._client.disconnect()

    def _broadcast(self) -> None:
        self._began_s = time.perf_counter()
        self._client.publish(_MODEL, self._model.tobytes())


@click.group()
def cli() -> None:
    """Run one side of the plain round."""


@cli.command()
@click.argument("port", type=int)
@click.argument("clients", type=int)
@click.argument("rounds", type=int)
def server(port: int, clients: int, rounds: int) -> None:
    """Run the server; it prints the seconds of each round as JSON."""
    client = _connect(port, _ANSWER.format("+"), _READY.format("+"))
    side = Server(client, clients, rounds)
    client.loop_forever()
    click.echo(json.dumps(side.durations))


@cli.command()
@click.argument("port", type=int)
@click.argument("index", type=int)
def client(port: int, index: int) -> None:
    """Answer every model until killed."""
    side = _connect(port, _MODEL)

    def answer(_client: Client, _userdata: object, message: MQTTMessage) -> None:
        half = np.frombuffer(message.payload, np.float32) * np.float32(0.5)
        side.publish(_ANSWER.format(index), half.tobytes())

    def ready(*_: object) -> None:
        side.publish(_READY.format(index), b"1", qos=1, retain=True)

    side.on_message = answer
    side.on_subscribe = ready
    side.loop_forever()


def _connect(port: int, *filters: str) -> Client:
    side = subscriber(*filters)
    side.connect("127.0.0.1", port)
    return side


if __name__ == "__main__":
    cli()
