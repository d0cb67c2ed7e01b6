"""The checkers: what was promised, kept apart from the programs, and compared after every event.

Rules, each with the name under which a violation is told:

- *double*: a device counts at most once in a round; a settled contribution never changes.
- *durable*: what central receipted as accepted, late or rejected stands in its tables; what a
  gateway said that it holds stands in its; a device forgets only what was finally receipted.
- *oracle*: a committed model is, bit for bit, the float64 mean of what its contributors trained.
- *memory*: an update builds on its device's last counted round, and what the device keeps is, bit
  for bit, what follows from it; in a lazy task the model is the mean of what all devices keep.
- *versions*: models form one chain; round numbers grow; an ended round never changes; at most one
  round of a task is open.
- *effect*: nothing late or rejected, and nothing that nobody trained, is a contribution.
- *budget*: ``tests.simulation.budgets``.
- *bounded*: no queue grows without limit.
- *boots*: no two lives of a program share a boot.
- *fault*: no handler raised anything but a refusal.
"""

import hashlib
import json
import sqlite3
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agent.core.seeding import round_seed
from device_agent.service.ports import EncodedUpdate, Work
from schemas.envelope import decode_frame
from schemas.messages import Receipt
from schemas.tasks import FINAL_STATES
from schemas.topics import Kind
from tests.simulation.budgets import Asked, check_budgets
from tests.simulation.observed import Ended, Memory, ViolationError
from tests.simulation.oracle import Oracle
from tests.simulation.person import PROBE
from tests.simulation.recollection import Trained, recollection_of, summands_of
from tests.simulation.tiny import DOWNLINK, delta_of
from transport.events import Outgoing
from updates.codecs import create

if TYPE_CHECKING:
    from tests.simulation.program import Program
    from tests.simulation.world import World

MAX_BACKLOG = 3000
FINAL = frozenset({"accepted", "duplicate", "late", "rejected"})
#: Refusals that central does not keep: there is no client or round that they could belong to.
PASSING_CODES = frozenset({"E_UNKNOWN_DEVICE", "E_UNKNOWN_TASK"})
Job = tuple[str, int, str]


class Ledger:
    """Watches one world."""

    def __init__(self, world: "World") -> None:
        self.memory = Memory()
        #: Of every update that was ever trained: what it was.
        self.updates: dict[Job, Trained] = {}
        #: Every transfer that a device has stored to be sent, and whose it is.
        self.produced: dict[str, Job] = {}
        #: Transfers whose receipt was lost with a restored central.
        self.forgiven: set[str] = set()
        self.counts: dict[str, int] = defaultdict(int)
        self._world = world
        self._is_restored = False
        self._asked = Asked()
        self._held: dict[str, set[str]] = defaultdict(set)
        self._finals: set[str] = set()
        self._offered: dict[str, dict[str, Job]] = defaultdict(dict)
        self._changes: dict[str, int] = {}
        self._boots: dict[str, int] = {}
        self._presence: dict[str, dict[str, int]] = defaultdict(dict)

    # -- what programs do ----------------------------------------------------------------------

    def trained(self, device: "Program", work: Work, update: EncodedUpdate) -> EncodedUpdate:
        """Note an update; now and then make it one that central must refuse."""
        job = (work.key.task, work.key.round, device.name)
        seed = round_seed(*job, work.plan.training.seed)
        recollection = recollection_of(self._world.layout, work, update)
        is_poison = seed % 1000 < 1000 * self._world.swarm.poison
        if is_poison:
            update = _poisoned(update)
        delta = delta_of(seed, work.plan.parameters)
        examples = update.num_examples
        new = Trained(update.manifest.sha256, examples, delta, is_poison, recollection)
        known = self.updates.setdefault(job, new)
        if known.sha256 != new.sha256:
            self._fail("effect", f"{job} gave {new.sha256[:8]} after {known.sha256[:8]}")
        return update

    def published(self, program: "Program", message: Outgoing) -> None:
        """See every message before it leaves."""
        self._asked.see(message)
        if message.topic.kind is not Kind.RECEIPT:
            return
        receipt = decode_frame(message.payload).body(Receipt)
        world = self._world
        is_final = receipt.status in FINAL and receipt.retry_after_s is None
        if is_final and program is world.central:
            is_of_no_task = (receipt.detail or "").startswith("task:")
            told = (receipt.status, "E_UNKNOWN_TASK" if is_of_no_task else receipt.code)
            self.memory.receipted.setdefault(receipt.xfer, told)
            self._finals.add(receipt.xfer)
            self.counts[receipt.status] += 1
        elif is_final:
            self._finals.add(receipt.xfer)  # a gateway's own no to what is malformed
        elif receipt.status == "held":
            self._held[program.name].add(receipt.xfer)
        world.note(program, f"says {receipt.status} {receipt.xfer[:6]}")

    def looked(self, program: "Program") -> None:
        """Look at a program after a turn of its loop, or after its end."""
        self._check_bounds(program)
        self._asked.check(self._fail)
        connection = program.connection
        if (
            connection.in_transaction
            or self._changes.get(program.name) == connection.total_changes
        ):
            return
        self._changes[program.name] = connection.total_changes
        if program is self._world.central:
            self._check_central(connection)
        elif program.name.startswith("gw/"):
            self._check_gateway(program)
        else:
            self._check_device(program)

    def restored(self, program: "Program", memory: Memory | None) -> None:
        """Look at a program anew: it begins from a backup.

        Args:
            program: Whose disk was exchanged.
            memory: Of central: what its tables had shown when the backup was taken.
        """
        self._changes.pop(program.name, None)
        self._held.pop(program.name, None)
        self._presence.pop(program.name, None)
        self._boots.pop(program.name, None)
        if memory is not None:
            self._is_restored = True
            self.forgiven |= self.memory.receipted.keys() - memory.receipted.keys()
            self.memory = memory.copy()

    # -- each program's tables -----------------------------------------------------------------

    def _check_bounds(self, program: "Program") -> None:
        waiting = len(program.queue.items)
        if waiting > MAX_BACKLOG:
            self._fail("bounded", f"{program.name} has {waiting} events waiting")

    def began(self, program: "Program", boot: int) -> None:
        """Note the boot of a new life."""
        if boot <= self._boots.get(program.name, -1):
            self._fail("boots", f"{program.name} begins life {program.life} with boot {boot}")
        self._boots[program.name] = boot
        if program is self._world.central:
            self._check_models(program)

    def _check_models(self, central: "Program") -> None:
        """Look whether the models that a new life of central finds are whole."""
        query = "SELECT task, model_sha256 FROM tasks WHERE model_sha256 IS NOT NULL"
        for task, sha256 in central.connection.execute(query):
            path = central.folder / "objects" / sha256
            found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "nothing"
            if found != sha256:
                self._fail("durable", f"the model of {task} is {found[:8]}, not {sha256[:8]}")

    def _check_device(self, device: "Program") -> None:
        rows = device.connection.execute("SELECT xfer, task, round FROM outbox").fetchall()
        now = {xfer: (task, number, device.name) for xfer, task, number in rows}
        before = self._offered[device.name]
        for xfer, job in now.items():
            self.produced[xfer] = job
        for xfer in before.keys() - now.keys():
            if xfer not in self._finals:
                self._fail("durable", f"{device.name} forgot {xfer[:6]} {before[xfer]}")
        self._offered[device.name] = now
        query = "SELECT xfer, task, round FROM jobs WHERE state = 'uploading'"
        for xfer, task, number in device.connection.execute(query):
            if xfer not in now and xfer not in self._finals:
                self._fail("durable", f"{device.name} has no update of {(task, number)} to send")

    def _check_presence(self, place: str, connection: sqlite3.Connection, query: str) -> None:
        known, rows = self._presence[place], dict(connection.execute(query))
        for device, boot in rows.items():
            if boot < known.get(device, 0):
                self._fail("boots", f"{place} believes boot {boot} of {device} after a newer one")
        self._presence[place] = rows  # without those that were purged

    def _check_gateway(self, gateway: "Program") -> None:
        query = "SELECT device, boot FROM devices"
        self._check_presence(gateway.name, gateway.connection, query)
        held = self._held[gateway.name]
        if not held:
            return
        ended = {xfer for (xfer,) in gateway.connection.execute("SELECT xfer FROM receipts")}
        held -= ended
        kept = {xfer for (xfer,) in gateway.connection.execute("SELECT xfer FROM outbox")}
        lost = held - kept
        if lost:
            self._fail("durable", f"{gateway.name} holds {min(lost)[:6]} no more")

    def _check_central(self, connection: sqlite3.Connection) -> None:
        rows = self._check_contributions(connection)
        refused = dict(connection.execute("SELECT xfer, status FROM refusals"))
        both = refused.keys() & self.memory.contributions.keys()
        if both:
            self._fail("effect", f"{min(both)[:6]} is refused and counted")
        self._check_receipts(refused)
        check_budgets(connection, self.memory.grants, self._fail)
        open_rounds = self._check_rounds(connection, rows)
        self._check_tasks(connection, rows, open_rounds)
        self._check_presence("central", connection, "SELECT device, boot FROM devices")

    def _check_contributions(self, connection: sqlite3.Connection) -> dict[Job, tuple[Any, ...]]:
        memory, found = self.memory, {}
        for row in connection.execute(
            "SELECT task, round, device, xfer, sha256, num_examples, settled, reason "
            "FROM contributions"
        ):
            job, (xfer, sha256, examples, settled, reason) = row[:3], row[3:]
            if job in found:
                self._fail("double", f"{job} is there twice")
            found[job] = row
            known = memory.contributions.get(xfer)
            if known == row:
                continue
            self._check_contribution(job, sha256, examples)
            if known is None and job[:2] in memory.ended:
                self._fail("effect", f"{job} is accepted after its round has ended")
            if known is not None and known[6] is not None:
                self._fail("double", f"{job} was {known[6:]}, now {(settled, reason)}")
            memory.contributions[xfer] = row
        gone = len(memory.contributions) - len(found)
        if gone:
            self._fail("durable", f"{gone} contributions are gone")
        return found

    def _check_contribution(self, job: Job, sha256: str, examples: int) -> None:
        trained = self.updates.get(job)
        if trained is None or trained.sha256 != sha256 or trained.examples != examples:
            self._fail("effect", f"{job} was never trained like that")
        elif trained.is_poison:
            self._fail("effect", f"{job} is poison and was accepted")

    def _check_receipts(self, refused: dict[str, str]) -> None:
        memory = self.memory
        for xfer, (status, code) in memory.receipted.items():
            if status in ("accepted", "duplicate"):
                is_kept = xfer in memory.contributions or self.is_of_counted(xfer)
            else:
                is_kept = refused.get(xfer) == status or code in PASSING_CODES
            if not is_kept and xfer not in self.forgiven:
                self._fail("durable", f"{xfer[:6]} {self.produced.get(xfer)} was {status}")

    def is_of_counted(self, xfer: str) -> bool:
        """Tell whether another transfer of the same job is counted: this one is its duplicate."""
        job = self.produced.get(xfer)
        return any(row[:3] == job for row in self.memory.contributions.values())

    def _check_rounds(
        self, connection: sqlite3.Connection, rows: dict[Job, tuple[Any, ...]]
    ) -> dict[str, int]:
        memory = self.memory
        open_rounds: dict[str, int] = {}
        for task, number, state, base, contributors, model in connection.execute(
            "SELECT task, round, state, base_model_sha256, contributors, model_sha256 "
            "FROM rounds ORDER BY task, round"
        ):
            key = (task, number)
            if memory.rounds.get(key) != state:
                self._check_new_state(key, state)
            phase = json.loads(state)["phase"]
            if phase in ("reporting", "aggregating"):
                if task in open_rounds:
                    self._fail("versions", f"{task} has rounds {open_rounds[task]} and {number}")
                open_rounds[task] = number
                continue
            outcome = (phase, base, contributors, model)
            if memory.ended.setdefault(key, outcome) != outcome:
                self._fail("versions", f"{key} was {memory.ended[key]}, now {outcome}")
            if memory.rounds.get(key) != f"checked {phase}":
                memory.rounds[key] = f"checked {phase}"
                names = json.loads(contributors) if contributors else []
                self._check_ended(key, json.loads(state), Ended(base, names, model), rows)
        return open_rounds

    def _check_new_state(self, key: tuple[str, int], state: str) -> None:
        memory = self.memory
        if key not in memory.rounds:
            newest = max((number for task, number in memory.rounds if task == key[0]), default=0)
            if key[1] <= newest:
                self._fail("versions", f"round {key[1]} of {key[0]} comes after {newest}")
        if not memory.rounds.get(key, "").startswith("checked"):
            memory.rounds[key] = state

    def _check_ended(
        self,
        key: tuple[str, int],
        state: dict[str, Any],
        end: Ended,
        rows: dict[Job, tuple[Any, ...]],
    ) -> None:
        names, base, model = end.names, end.base, end.model
        task, number = key
        own = {job[2]: row for job, row in rows.items() if job[:2] == key}
        counted = sorted(device for device, row in own.items() if row[6] == "counted")
        without_reason = [d for d, row in own.items() if row[6] != "counted" and not row[7]]
        if without_reason:
            self._fail("double", f"{key} ended without a word on {without_reason}")
        if state["phase"] == "abandoned":
            if model is not None or counted:
                self._fail("double", f"{key} is abandoned, and {counted} count")
            return
        if not set(names) <= set(state["cohort"]):
            self._fail("effect", f"{key} is of {names}, who were not all asked")
        if counted != names or names != sorted(set(names)):
            self._fail("double", f"{key} is of {names}, counted are {counted}")
        oracle = self.memory.oracles.setdefault(task, Oracle(self._world.layout))
        head = self.memory.heads.get(task)
        if (base != head) if head else not oracle.is_first(base):
            self._fail("versions", f"{key} begins from {base[:8]}, not from {head}")
        updates = {device: self.updates[(task, number, device)] for device in names}
        expected = self._expected(oracle, task, base, self._summands(key, updates))
        if model != expected:
            self._fail("oracle", f"{key} of {names} is {model}, must be {expected}")
        self.memory.heads[task] = expected
        self.counts["committed"] += 1

    def _summands(
        self, key: tuple[str, int], updates: dict[str, Trained]
    ) -> list[tuple[int, np.ndarray]]:
        kept = self.memory.kept.setdefault(key[0], {})
        try:
            return summands_of(key[1], updates, kept, is_restored=self._is_restored)
        except ValueError as error:
            self._fail("memory", f"{key}: {error}")
            return []

    def _expected(
        self, oracle: Oracle, task: str, base: str, updates: list[tuple[int, np.ndarray]]
    ) -> str:
        swarm = self._world.swarm
        if not swarm.compressed:
            return oracle.commit(base, updates)
        ended = [end for key, end in self.memory.ended.items() if key[0] == task]
        committed = sum(end[0] == "committed" for end in ended)  # this one with them
        rounds = 1 if task == PROBE else swarm.rounds
        codec = create(DOWNLINK.codec, DOWNLINK.codec_params)
        return oracle.send(base, updates, codec, is_last=committed >= rounds)

    def _check_tasks(
        self,
        connection: sqlite3.Connection,
        rows: dict[Job, tuple[Any, ...]],
        open_rounds: dict[str, int],
    ) -> None:
        for task, progress, model, totals in connection.execute(
            "SELECT task, progress, model_sha256, totals FROM tasks"
        ):
            head = self.memory.heads.get(task)
            if head is not None and model != head:
                self._fail("versions", f"{task} has model {model}, the newest is {head}")
            ended = [end for key, end in self.memory.ended.items() if key[0] == task]
            committed = sum(end[0] == "committed" for end in ended)
            said = json.loads(progress)
            if said["state"] in FINAL_STATES and task in open_rounds:
                self._fail("versions", f"{task} is {said['state']} with a round open")
            if said["committed"] != committed:
                self._fail("versions", f"{task} says {said['committed']}, {committed} committed")
            if committed > said["rounds"]:
                self._fail("versions", f"{task} committed {committed} of {said['rounds']} rounds")
            accepted = sum(job[0] == task for job in rows)
            if json.loads(totals)["updates_accepted"] != accepted:
                self._fail("double", f"{task} says {totals}, {accepted} are accepted")

    def _fail(self, rule: str, text: str) -> None:
        raise ViolationError(rule, text)


def _poisoned(update: EncodedUpdate) -> EncodedUpdate:
    """Return an update whose bytes are no update, under a manifest that is in order."""
    size = len(update.tail) if update.manifest.inline else 64
    tail = hashlib.sha256(update.manifest.sha256.encode()).digest() * (size // 32 + 1)
    sha256 = hashlib.sha256(tail).hexdigest()
    fields = {"sha256": sha256, "size": len(tail), "inline": update.gain is None}
    manifest = update.manifest.model_copy(update=fields)
    if update.gain is None or update.file is None:
        return replace(update, manifest=manifest, tail=tail, file=None)
    update.file.write_bytes(tail)
    return replace(update, manifest=manifest, tail=hashlib.sha256(tail).digest())
