"""Every topic name and filter, with its QoS, retain flag and message expiry.

A ``Topic`` is formatted by ``name`` and read back by ``parse``; nothing else in the project
builds or splits a topic. A topic *name* is published to, a topic *filter* is subscribed to
(MQTT 3.1.1, section 4.7). At most 7 slashes, so that every public broker carries it.
"""

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from schemas.errors import WireError, shown
from schemas.ids import RESERVED, SHA16_LENGTH, TRANSFER_ID_LENGTH, is_hex, is_id

PREFIX = "fl/v1"
GATEWAY_LEVEL = "gw"
EVERYONE_LEVEL = "all"
MAX_TOPIC_BYTES = 256
MAX_CHUNK_INDEX_DIGITS = 5
#: The same few topics are written and read all the time; each is checked once.
_REMEMBERED = 2048


class TopicError(WireError):
    """A topic name is not one of this protocol's."""

    code = "E_TOPIC"


@dataclass(frozen=True, slots=True)
class Address:
    """Whose subtree a topic lies in: a device's, a gateway's, or all devices' of a region."""

    region: str
    #: A device's id, or ``"gw"`` for the region's gateway, or ``"all"`` for all its devices.
    node: str

    @classmethod
    def of_gateway(cls, region: str) -> "Address":
        """Return the subtree between central and one region's gateway."""
        return cls(region, GATEWAY_LEVEL)

    @classmethod
    def of_everyone(cls, region: str) -> "Address":
        """Return the subtree that every device of a region listens to."""
        return cls(region, EVERYONE_LEVEL)

    @property
    def is_gateway(self) -> bool:
        """Whether this is the subtree between central and a gateway."""
        return self.node == GATEWAY_LEVEL

    @property
    def is_everyone(self) -> bool:
        """Whether this is a region's broadcast subtree."""
        return self.node == EVERYONE_LEVEL

    @property
    def prefix(self) -> str:
        """The subtree's first four levels, each checked."""
        _check_id(self.region, reserved=True)
        if self.is_gateway:
            return f"{PREFIX}/{GATEWAY_LEVEL}/{self.region}"
        _check_id(self.node, reserved=not self.is_everyone)
        return f"{PREFIX}/{self.region}/{self.node}"


class Kind(Enum):
    """What a topic is for; the value is what follows the subtree's prefix."""

    TASK_SUBMIT = "ctl/task/submit"
    TASK_STATUS = "ctl/task/{task}/status"
    TASK_CONTROL = "ctl/task/{task}/control"
    CENTRAL_STATE = "ctl/central/state"

    STATE = "up/state"
    NEXT = "up/next"
    MANIFEST = "up/m/{xfer}"
    CHUNK = "up/c/{xfer}/{k}"
    GET = "up/get"
    JOB_STATUS = "up/task/{task}/status"
    HEARTBEAT = "up/hb"
    RELAYED = "up/dev/{device}"

    TASK = "dn/task"
    NEED = "dn/need/{xfer}"
    RECEIPT = "dn/rcpt/{xfer}"
    BLOCK = "dn/b/{sha16}/{k}"
    CONTROL = "dn/ctl"


@dataclass(frozen=True, slots=True)
class Rule:
    """How a kind of topic is published."""

    qos: int = 1
    retain: bool = False
    #: MQTT 5 message expiry in seconds; None: does not expire. The header's times say the same.
    expiry_s: int | None = None


RULES: dict[Kind, Rule] = {
    Kind.TASK_SUBMIT: Rule(expiry_s=300),
    Kind.TASK_STATUS: Rule(retain=True),
    Kind.TASK_CONTROL: Rule(),
    Kind.CENTRAL_STATE: Rule(retain=True),
    Kind.STATE: Rule(retain=True),
    Kind.NEXT: Rule(expiry_s=60),
    Kind.MANIFEST: Rule(expiry_s=3600),
    Kind.CHUNK: Rule(expiry_s=60),
    Kind.GET: Rule(expiry_s=60),
    Kind.JOB_STATUS: Rule(expiry_s=3600),
    Kind.HEARTBEAT: Rule(qos=0, expiry_s=90),
    Kind.RELAYED: Rule(),
    Kind.TASK: Rule(expiry_s=3600),
    Kind.NEED: Rule(expiry_s=60),
    Kind.RECEIPT: Rule(expiry_s=3600),
    Kind.BLOCK: Rule(expiry_s=60),
    Kind.CONTROL: Rule(expiry_s=60),
}

_CENTRAL_KINDS = frozenset(
    {Kind.TASK_SUBMIT, Kind.TASK_STATUS, Kind.TASK_CONTROL, Kind.CENTRAL_STATE}
)
_DEVICE_ONLY = frozenset({Kind.JOB_STATUS, Kind.HEARTBEAT})
_GATEWAY_ONLY = frozenset({Kind.RELAYED})
_EVERYONE_KINDS = frozenset({Kind.TASK, Kind.BLOCK})
#: Which levels vary in the topics of a kind.
_LEVELS_OF = {kind: frozenset(re.findall(r"\{(\w+)\}", kind.value)) for kind in Kind}


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic name, taken apart.

    Attributes:
        kind: What it is for.
        address: The subtree; None for the kinds that persons and central share.
        task: Task id, where the kind has one.
        xfer: Transfer id, where the kind has one.
        sha16: First 16 hex digits of an object's SHA-256, for blocks of a model.
        k: Chunk number, counted from 0.
        device: The device whose message a gateway relays.
    """

    kind: Kind
    address: Address | None = None
    task: str | None = None
    xfer: str | None = None
    sha16: str | None = None
    k: int | None = None
    device: str | None = None

    @property
    def rule(self) -> Rule:
        """QoS, retain and expiry of this kind."""
        return RULES[self.kind]

    @property
    def name(self) -> str:
        """The topic name.

        Raises:
            TopicError: A level does not fit its grammar or the kind does not exist there.
        """
        return _name(self)

    def check(self) -> None:
        """Refuse a topic whose parts do not fit.

        Raises:
            TopicError: A level does not fit its grammar or the kind does not exist there.
        """
        _check_place(self.kind, self.address)
        if self.task is not None:
            _check_id(self.task)
        if self.device is not None:
            _check_id(self.device, reserved=True)
        _check_hex(self.xfer, TRANSFER_ID_LENGTH)
        _check_hex(self.sha16, SHA16_LENGTH)
        _check_chunk(self.k)

    def levels(self) -> dict[str, object]:
        """Return the levels that vary in this kind, by name.

        Raises:
            TopicError: There are others than the kind has.
        """
        given = {name: getattr(self, name) for name in ("task", "xfer", "sha16", "k", "device")}
        levels: dict[str, object] = {name: at for name, at in given.items() if at is not None}
        if levels.keys() != _LEVELS_OF[self.kind]:
            needed = ", ".join(sorted(_LEVELS_OF[self.kind])) or "none"
            got = ", ".join(sorted(levels)) or "none"
            message = f"topic {self.kind.name} has the levels {needed}; given: {got}"
            raise TopicError(message)
        return levels


@lru_cache(_REMEMBERED)
def _name(topic: Topic) -> str:
    topic.check()
    tail = topic.kind.value.format(**topic.levels())
    return f"{topic.address.prefix}/{tail}" if topic.address else f"{PREFIX}/{tail}"


@lru_cache(_REMEMBERED)
def parse(name: str) -> Topic:
    """Return the topic of a name that was received.

    Raises:
        TopicError: The name is not one of this protocol's.
    """
    if len(name) <= MAX_TOPIC_BYTES:
        for pattern, kind in _PATTERNS:
            if match := pattern.fullmatch(name):
                return _topic(kind, match.groupdict())
    message = f"topic {shown(name)} is not part of {PREFIX}"
    raise TopicError(message)


def central_filters() -> tuple[str, ...]:
    """Return the topic filters that central subscribes to."""
    return (
        f"{PREFIX}/ctl/task/submit",
        f"{PREFIX}/ctl/task/+/control",
        f"{PREFIX}/{GATEWAY_LEVEL}/+/up/#",
    )


def uplink_filters(region: str) -> tuple[str, ...]:
    """Return the filters of a gateway's session towards central."""
    return (
        f"{Address.of_gateway(region).prefix}/dn/#",
        f"{PREFIX}/ctl/central/state",
    )


def downlink_filters(region: str) -> tuple[str, ...]:
    """Return the filter of a gateway's session towards its devices."""
    _check_id(region, reserved=True)
    return (f"{PREFIX}/{region}/+/up/#",)


def device_filters(region: str, device: str) -> tuple[str, ...]:
    """Return the filters of one device: its own subtree and its region's broadcasts."""
    own = Address(region, device).prefix
    everyone = Address.of_everyone(region).prefix
    return (f"{own}/dn/#", f"{everyone}/dn/#")


def status_filter() -> str:
    """Return the filter of every task's retained status."""
    return f"{PREFIX}/ctl/task/+/status"


def state_filter() -> str:
    """Return the filter of every device's and every gateway's retained state."""
    return f"{PREFIX}/+/+/up/state"


def _check_id(value: str, *, reserved: bool = False) -> None:
    if not is_id(value) or (reserved and value in RESERVED):
        message = f"topic level {shown(value)} is not an id or is reserved"
        raise TopicError(message)


def _check_hex(value: str | None, length: int) -> None:
    if value is not None and not is_hex(value, length):
        message = f"topic level {shown(value)} is not {length} hex digits"
        raise TopicError(message)


def _check_chunk(k: int | None) -> None:
    if k is not None and not 0 <= k < 10**MAX_CHUNK_INDEX_DIGITS:
        message = f"topic level {shown(k)} is not a chunk number of 0 to 99999"
        raise TopicError(message)


def _check_place(kind: Kind, address: Address | None) -> None:
    if address is None:
        fits = kind in _CENTRAL_KINDS
    elif address.is_everyone:
        fits = kind in _EVERYONE_KINDS
    elif address.is_gateway:
        fits = kind not in _CENTRAL_KINDS | _DEVICE_ONLY
    else:
        fits = kind not in _CENTRAL_KINDS | _GATEWAY_ONLY
    if not fits:
        message = f"topic {kind.name} does not exist under {address}"
        raise TopicError(message)


def _topic(kind: Kind, levels: dict[str, str]) -> Topic:
    address = None
    if "region" in levels:
        address = Address(levels["region"], levels.get("node", GATEWAY_LEVEL))
    k = levels.get("k")
    topic = Topic(
        kind,
        address,
        task=levels.get("task"),
        xfer=levels.get("xfer"),
        sha16=levels.get("sha16"),
        k=None if k is None else int(k),
        device=levels.get("device"),
    )
    _ = topic.name  # refuses reserved levels and kinds in the wrong place
    return topic


_ID = r"[a-z0-9][a-z0-9-]{0,31}"
_NOT_GATEWAY = rf"(?!{GATEWAY_LEVEL}/){_ID}"
_LEVELS = {
    "task": rf"(?P<task>{_ID})",
    "device": rf"(?P<device>{_ID})",
    "xfer": r"(?P<xfer>[0-9a-f]{32})",
    "sha16": r"(?P<sha16>[0-9a-f]{16})",
    "k": rf"(?P<k>0|[1-9][0-9]{{0,{MAX_CHUNK_INDEX_DIGITS - 1}}})",
}


def _patterns() -> list[tuple[re.Pattern[str], Kind]]:
    found = []
    for kind in Kind:
        tail = kind.value.format(**_LEVELS)
        if kind in _CENTRAL_KINDS:
            found.append((re.compile(f"{PREFIX}/{tail}"), kind))
            continue
        if kind not in _DEVICE_ONLY:
            prefix = f"{PREFIX}/{GATEWAY_LEVEL}/(?P<region>{_ID})"
            found.append((re.compile(f"{prefix}/{tail}"), kind))
        if kind not in _GATEWAY_ONLY:
            prefix = f"{PREFIX}/(?P<region>{_NOT_GATEWAY})/(?P<node>{_NOT_GATEWAY})"
            found.append((re.compile(f"{prefix}/{tail}"), kind))
    return found


_PATTERNS = _patterns()
