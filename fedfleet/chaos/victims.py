"""Does to processes and doors what the nemesis has drawn, and takes it back in time."""

import signal
from collections import Counter
from collections.abc import Mapping

from fedfleet.chaos.nemesis import Fault
from fedfleet.chaos.proxy import Door, Proxy
from fedfleet.testbed.plan import Plan, Process
from fedfleet.testbed.processes import Processes


class Victims:
    """The fleet as something that can be hurt.

    Attributes:
        counts: How often each kind of fault hit each role, by (kind, role).
        down: Processes that are dead now and will be started again.
    """

    def __init__(self, plan: Plan, processes: Processes, proxy: Proxy) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.down: set[str] = set()
        self._plan: Mapping[str, Process] = {
            one.name: one for one in (plan.broker, *plan.services)
        }
        self._processes = processes
        self._proxy = proxy
        self._under_way: dict[str, tuple[float, Fault]] = {}

    @property
    def hurt(self) -> frozenset[str]:
        """To whom something is happening now."""
        return frozenset(self._under_way)

    @property
    def kills(self) -> int:
        """How many processes were killed."""
        return sum(n for (kind, _), n in self.counts.items() if kind == "kill")

    def strike(self, fault: Fault, now_s: float) -> None:
        """Begin a fault."""
        self._under_way[fault.victim] = (now_s + fault.seconds, fault)
        self.counts[fault.kind, role(fault.victim)] += 1
        match fault.kind:
            case "kill":
                self.down.add(fault.victim)
                self._processes.kill(fault.victim)
            case "stop":
                self._processes.send(fault.victim, signal.SIGSTOP)
            case "cut":
                self._proxy.tell(fault.victim, Door.shut)
            case "hole":
                self._proxy.tell(fault.victim, lambda door: door.hold(fault.ways))
            case "delay":
                self._proxy.tell(fault.victim, lambda door: _slow(door, fault.delay_s))

    def recover(self, now_s: float) -> list[str]:
        """End the faults whose time is over; return who was started again."""
        over = [fault for end_s, fault in self._under_way.values() if end_s <= now_s]
        return [fault.victim for fault in over if self._end(fault)]

    def heal(self) -> list[str]:
        """End every fault now; return who was started again."""
        return self.recover(float("inf"))

    def check(self) -> None:
        """Look whether everybody runs who was not killed.

        Raises:
            ProcessEndedError: Somebody does not.
        """
        self._processes.check(self.down)

    def _end(self, fault: Fault) -> bool:
        del self._under_way[fault.victim]
        if fault.kind == "kill":
            self._processes.start(self._plan[fault.victim])
            self.down.remove(fault.victim)
            return True
        if fault.kind == "stop":
            self._processes.send(fault.victim, signal.SIGCONT)
        else:
            self._proxy.tell(fault.victim, Door.let_through)
        if fault.drops:
            self._proxy.tell(fault.victim, Door.drop)
        return False


def role(name: str) -> str:
    """Return what kind of program a process or a door belongs to."""
    return name.partition("/")[0].partition("-")[0]


def _slow(door: Door, delay_s: float) -> None:
    door.delay_s = delay_s
