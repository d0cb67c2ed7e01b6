"""One chaos run: start a fleet, hurt it while it works, heal it, and check what it wrote down."""

import json
import os
import sqlite3
import time
from pathlib import Path

from device_agent.adapters.receipts import count_unreceipted
from fedfleet.auditing import Audit, run_audit
from fedfleet.chaos.choices import ChaosOptions, submission
from fedfleet.chaos.nemesis import Fault, Nemesis
from fedfleet.chaos.proxy import Proxy
from fedfleet.chaos.report import Outcome
from fedfleet.chaos.victims import Victims
from fedfleet.chaos.watch import FILTERS, Watch
from fedfleet.client import BrokerUnreachableError, FleetClient, open_client
from fedfleet.errors import FleetError
from fedfleet.screen import Screen
from fedfleet.testbed.demo import claim, find_mosquitto, free_port
from fedfleet.testbed.plan import Place, Plan, make_plan
from fedfleet.testbed.processes import Processes
from fedfleet.testbed.run import Run
from schemas.topics import Kind, Topic
from transport.settings import ConnectionSettings

_START_S = 120.0
_STEP_S = 0.03
_PUBLISH_S = 0.5
_SUBMIT_AGAIN_S = 3.0
_LINE_S = 10.0
#: A healthy fleet ends its task well within this, also on a busy machine.
_HEAL_S = 150.0
#: A gateway in whose custody an update lies is asked again after a minute.
_SETTLE_S = 75.0


class StuckError(FleetError):
    """Everything was healed, and a task did not end: liveness is broken."""


class ChaosRun:
    """One run in one folder."""

    def __init__(self, options: ChaosOptions, folder: Path, screen: Screen) -> None:
        self._options = options
        self._folder = folder
        self._screen = screen
        self._watch = Watch()
        self._number = 0
        self._submitted_s = float("-inf")
        self._told_s = 0.0
        self._began_s = 0.0

    def run(self) -> Outcome:
        """Run it.

        Raises:
            FleetError: The fleet did not come up, a process ended by itself, or a task did not
                end after everything was healed.
        """
        options = self._options
        claim(self._folder)
        port, mosquitto = free_port(), find_mosquitto(options.broker)
        with Proxy(_doors(options), port) as proxy:
            is_root = os.geteuid() == 0
            place = Place(self._folder, port, mosquitto, is_root=is_root, doors=proxy.ports)
            plan = make_plan(options.fleet, place)
            with Processes(self._folder / "logs") as processes:
                fleet = Run(plan, place, processes, self._screen)
                fleet.start()
                victims = Victims(plan, processes, proxy)
                settings = ConnectionSettings.load(broker=plan.url, mqtt_protocol=plan.protocol)
                with open_client(settings, FILTERS) as client:
                    fleet.wait_for_births(client, _START_S)
                    hurt_s = self._hurt(client, victims, _nemesis(options, plan, proxy))
                    healed_s = self._heal(client, victims, place, plan)
            moved = proxy.moved_bytes
        self._screen.block("checking the books")
        models = {task: status.model_sha256 for task, status in self._watch.statuses.items()}
        return Outcome(
            options, victims.counts, self._audit(place, plan), self._watch.recoveries, models,
            moved, (hurt_s, healed_s), self._folder,
        )  # fmt: skip

    def _hurt(self, client: FleetClient, victims: Victims, nemesis: Nemesis) -> float:
        """Hurt the fleet while task follows task, until enough has happened or time is up."""
        options, began_s = self._options, time.monotonic()
        self._began_s = began_s
        next_s = began_s + nemesis.wait_s()
        with (self._folder / "faults.jsonl").open("w") as log:
            while not self._is_enough(victims, time.monotonic() - began_s):
                now_s = time.monotonic()
                self._started_again(victims.recover(now_s), victims)
                if now_s >= next_s and not self._is_ahead(victims):
                    next_s = now_s + nemesis.wait_s()
                    fault = nemesis.fault(victims.hurt)
                    if fault is not None:
                        self._strike(victims, fault, now_s)
                        log.write(_entry(fault, now_s - began_s))
                victims.check()
                self._submit(client, "broker" in victims.hurt, options)
                self._listen(client, victims)
        return time.monotonic() - began_s

    def _is_enough(self, victims: Victims, passed_s: float) -> bool:
        options = self._options
        if passed_s >= options.seconds:
            return True
        return victims.kills >= options.kills and self._watch.accepted >= options.updates

    def _is_ahead(self, victims: Victims) -> bool:
        """Tell whether more has been killed than updates have come: let some through first."""
        wanted, paid = self._options, self._watch.accepted + 2 * self._options.devices
        return bool(wanted.updates) and victims.kills * wanted.updates > paid * wanted.kills

    def _strike(self, victims: Victims, fault: Fault, now_s: float) -> None:
        victims.strike(fault, now_s)
        if fault.victim == "central" and fault.kind == "kill":
            self._watch.central_killed()
        elif fault.victim in ("broker", "central"):
            self._watch.disturbed()

    def _started_again(self, names: list[str], victims: Victims) -> None:
        if "central" in names:
            is_disturbed = bool(victims.hurt & {"broker", "central"}) or "broker" in names
            self._watch.central_started(time.monotonic(), time.time(), is_disturbed=is_disturbed)

    def _submit(self, client: FleetClient, is_broker_hurt: bool, options: ChaosOptions) -> None:  # noqa: FBT001
        """Keep one task under way; what is not seen at central is submitted again."""
        if self._number and self._watch.is_ended(_task(self._number)):
            self._number += 1
            self._submitted_s = float("-inf")
        self._number = self._number or 1
        now_s = time.monotonic()
        is_known = _task(self._number) in self._watch.statuses
        if is_known or is_broker_hurt or now_s < self._submitted_s + _SUBMIT_AGAIN_S:
            return
        self._submitted_s = now_s
        payload = json.dumps(submission(options, self._number)).encode()
        try:
            client.publish(Topic(Kind.TASK_SUBMIT), payload, _PUBLISH_S)
        except BrokerUnreachableError:
            self._submitted_s = now_s - _SUBMIT_AGAIN_S + _PUBLISH_S

    def _listen(self, client: FleetClient, victims: Victims) -> None:
        message = client.next_message(_STEP_S)
        while message is not None:
            self._watch.take(message, time.monotonic())
            message = client.next_message(0)
        text = self._line(victims)
        self._screen.block(text)
        if time.monotonic() - self._told_s >= _LINE_S:
            self._told_s = time.monotonic()
            self._screen.line(text)

    def _line(self, victims: Victims) -> str:
        status = self._watch.statuses.get(_task(self._number))
        where = f"{status.task} {status.state}, round {status.round}" if status else "no task yet"
        hurt = ", ".join(sorted(victims.hurt)) or "nobody"
        return (
            f"{time.monotonic() - self._began_s:4.0f} s: {victims.kills} kills of "
            f"{sum(victims.counts.values())} faults, {self._watch.accepted} updates accepted; "
            f"{where}; hurt: {hurt}"
        )

    def _heal(self, client: FleetClient, victims: Victims, place: Place, plan: Plan) -> float:
        """Take every fault back, and wait until nothing is under way any more.

        Raises:
            StuckError: A task does not end.
        """
        self._screen.line("healing")
        began_s = time.monotonic()
        self._started_again(victims.heal(), victims)
        while not self._watch.is_ended(_task(self._number)):
            if time.monotonic() - began_s > _HEAL_S:
                seed, status = self._options.seed, self._watch.statuses.get(_task(self._number))
                message = (
                    f"{_task(self._number)} has not ended {_HEAL_S:g} s after all faults were "
                    f"over (--seed {seed}); logs are in {self._folder}; its status is {status}"
                )
                raise StuckError(message)
            victims.check()
            if _task(self._number) not in self._watch.statuses:
                self._submit(client, is_broker_hurt=False, options=self._options)
            self._listen(client, victims)
        while _waiting(place, plan) and time.monotonic() - began_s < _HEAL_S + _SETTLE_S:
            victims.check()
            self._listen(client, victims)
        return time.monotonic() - began_s

    def _audit(self, place: Place, plan: Plan) -> Audit:
        state = place.folder / "state"
        devices = [state / member.device for member in plan.members]
        gateways = [state / f"gateway-{region}" for region in plan.regions]
        return run_audit(place.central_state_dir, {}, None, devices, gateways)


def _nemesis(options: ChaosOptions, plan: Plan, proxy: Proxy) -> Nemesis:
    names = [plan.broker.name, *(one.name for one in plan.services)]
    return Nemesis(options.seed, names, list(proxy.ports), options.pace_s)


def _doors(options: ChaosOptions) -> list[str]:
    """Return a door for each session of the fleet; processes' names are doors too."""
    plan = make_plan(options.fleet, Place(Path(), 1))
    names = [one.name for one in plan.services]
    return [*names, *(f"gateway-{region}/uplink" for region in plan.regions)]


def _task(number: int) -> str:
    return f"chaos-{number}"


def _waiting(place: Place, plan: Plan) -> int:
    try:
        return sum(
            count_unreceipted(place.folder / "state" / member.device) for member in plan.members
        )
    except sqlite3.OperationalError:  # a device is just making its database
        return 1


def _entry(fault: Fault, at_s: float) -> str:
    found = {
        "at_s": round(at_s, 2),
        "kind": fault.kind,
        "victim": fault.victim,
        "seconds": round(fault.seconds, 2),
        "ways": fault.ways,
    }
    return json.dumps(found) + "\n"
