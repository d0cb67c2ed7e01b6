"""The audit after a soak: what central, the gateways and the devices wrote down must agree."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path


def audit(states: Path, task: str, rounds: int, devices: int, regions: int) -> list[str]:
    """Return what does not hold, in words; nothing when the books are in order.

    Args:
        states: The folder of all state directories.
        task: The task's id.
        rounds: Rounds that must be committed.
        devices: Clients that each round must count.
        regions: Gateways, whose outboxes must be empty.
    """
    faults = _central(states / "central" / "central.db", task, rounds, devices)
    for number in range(1, regions + 1):
        path = states / f"gateway-region-{number}" / "gateway.db"
        (kept,) = _one(path, "SELECT count(*) FROM outbox")
        if kept:
            faults.append(f"gateway of region-{number}: {kept} updates are still in custody")
    for number in range(1, devices + 1):
        faults += _device(states / f"device-{number}" / "device.db", task, rounds)
    return faults


def _central(path: Path, task: str, rounds: int, devices: int) -> list[str]:
    faults = []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        committed = database.execute(
            "SELECT round, contributors FROM rounds WHERE task = ? AND model_sha256 IS NOT NULL",
            (task,),
        ).fetchall()
        counted = database.execute(
            "SELECT round, device FROM contributions WHERE task = ? AND settled = 'counted'",
            (task,),
        ).fetchall()
        (unsettled,) = database.execute(
            "SELECT count(*) FROM contributions WHERE task = ? AND settled IS NULL", (task,)
        ).fetchone()
        (accepted, totals) = database.execute(
            "SELECT count(*), (SELECT totals FROM tasks WHERE task = :task) "
            "FROM contributions WHERE task = :task",
            {"task": task},
        ).fetchone()
    if len(committed) != rounds:
        faults.append(f"central: {len(committed)} rounds are committed, not {rounds}")
    named = {(number, device) for number, names in committed for device in json.loads(names)}
    if named != set(counted) or len(counted) != len(set(counted)):
        faults.append("central: counted contributions are not the contributors of the rounds")
    if len(counted) != rounds * devices:
        faults.append(f"central: {len(counted)} updates are counted, not {rounds * devices}")
    if unsettled:
        faults.append(f"central: {unsettled} contributions were never settled")
    told = json.loads(totals)["updates_accepted"]
    if told != accepted:
        faults.append(f"central: the totals tell of {told} updates, the table has {accepted}")
    return faults


def _device(path: Path, task: str, rounds: int) -> list[str]:
    (done,) = _one(path, "SELECT count(*) FROM jobs WHERE task = ? AND state = 'done'", task)
    (owed,) = _one(path, "SELECT count(*) FROM outbox")
    faults = []
    if done != rounds:
        faults.append(f"{path.parent.name}: {done} jobs are done, not {rounds}")
    if owed:
        faults.append(f"{path.parent.name}: {owed} updates have no final receipt")
    return faults


def _one(path: Path, query: str, *values: object) -> tuple[int, ...]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        found: tuple[int, ...] = database.execute(query, values).fetchone()
    return found
