"""A visit to one broker as a program's session would see it; it gathers facts and judges none.

An acknowledgement proves nothing: brokers acknowledge what an access list or a size limit then
drops. A right is proved by a message that the broker delivers back.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fedfleet.doctor.clock_checks import CENTRAL_TOPIC, UPTIME_TOPIC
from fedfleet.doctor.subject import Link
from fedfleet.doctor.visit_facts import SIZES, Visit
from transport.broker_probe import BrokerProbe
from transport.broker_url import BrokerAddress, parse_broker_url
from transport.dialect import Protocol, Version
from transport.probe_answers import Echo
from transport.reaching import knock, resolve, shake_hands

#: Topic and fixed header of a probe, at most.
_OVERHEAD_BYTES = 512
#: Retained messages follow a subscription at once.
_LISTEN_S = 0.3


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the broker is waited for.

    Attributes:
        answer_s: For one answer.
        sizes_s: For a message of any size to come back.
        ends_s: When the visit must be over, on the monotonic clock.
    """

    answer_s: float
    sizes_s: float
    ends_s: float

    def left(self, wanted_s: float | None = None) -> float:
        """Return how long the next step may take."""
        wanted_s = self.answer_s if wanted_s is None else wanted_s
        return max(0.05, min(wanted_s, self.ends_s - time.monotonic()))

    @property
    def is_over(self) -> bool:
        """Whether the visit must end."""
        return time.monotonic() >= self.ends_s


@dataclass(frozen=True, slots=True)
class Credentials:
    """How the program shows who it is, and which MQTT it speaks."""

    protocol: Protocol
    ca_file: Path | None
    cert_file: Path | None
    key_file: Path | None


def visit(link: Link, credentials: Credentials, patience: Patience) -> Visit:
    """Go the whole way to a broker; the first step that fails is the last.

    Raises:
        BrokerUrlError: The URL does not fit.
    """
    address = parse_broker_url(link.url).with_login(None, link.password)
    address = address.with_tls_files(
        credentials.ca_file, credentials.cert_file, credentials.key_file
    )
    found = Visit(link, address, resolve(address, patience.left()))
    if found.name.problem is None:
        found.port = knock(address, patience.left())
    if found.port is None or found.port.problem is not None:
        return found
    if address.is_tls:
        found.tls = shake_hands(address, patience.left())
        if found.tls.problem is not None:
            return found
    _speak(found, credentials.protocol, patience)
    return found


def _speak(found: Visit, protocol: Protocol, patience: Patience) -> None:
    versions: tuple[Version, ...] = ("5", "3.1.1") if protocol == "auto" else (protocol,)
    for version in versions:
        probe = _probe(found.address, version)
        answer = probe.connect(patience.left())
        found.version, found.login = version, answer
        if answer.problem is None:
            _look_around(found, probe, patience)
        if not answer.is_version_refused:
            return


def _look_around(found: Visit, probe: BrokerProbe, patience: Patience) -> None:
    try:
        _ask_for_filters(found, probe, patience)
        _prove_rights(found, probe, patience)
    finally:
        probe.close()
        found.heard = probe.heard
    _prove_sizes(found, patience)
    _ask_whether_kept(found, patience)


def _ask_for_filters(found: Visit, probe: BrokerProbe, patience: Patience) -> None:
    for topic_filter in found.link.filters:
        is_state = topic_filter == CENTRAL_TOPIC
        refusal = probe.subscribe(topic_filter, patience.left(), retained=is_state)
        if refusal:
            found.refused[topic_filter] = refusal
        elif not is_state:
            probe.unsubscribe(topic_filter)  # the program's own messages are none of the doctor's
    for topic_name in {UPTIME_TOPIC, CENTRAL_TOPIC} - set(found.link.filters):
        probe.subscribe(topic_name, patience.left(), retained=True)
    probe.listen(patience.left(_LISTEN_S))


def _prove_rights(found: Visit, probe: BrokerProbe, patience: Patience) -> None:
    nonce = secrets.token_hex(8)
    paths = found.link.paths
    topics = [f"{prefix}/{nonce}" for prefix in (paths.publishes, paths.listens)]
    for topic_name in topics:
        probe.subscribe(topic_name, patience.left(), retained=False)
    messages = [(topic_name, b"fedfleet doctor") for topic_name in topics]
    found.publishes, found.listens = probe.echoes(messages, patience.left(), patience.answer_s / 2)


def _prove_sizes(found: Visit, patience: Patience) -> None:
    """Publish ever larger messages where one came back, each over a connection of its own.

    A broker may close the connection over one that is too large.
    """
    prefix = _echoing_prefix(found)
    if prefix is None:
        return
    limit = found.login.packet_bytes if found.login else None
    sizes = [size for size in SIZES if limit is None or size + _OVERHEAD_BYTES <= limit]
    ends_s = time.monotonic() + patience.left(patience.sizes_s)
    for size in sizes:
        left = ends_s - time.monotonic()
        if left <= 0:
            return
        grace_s = patience.left()
        action = partial(_echo_of_size, prefix=prefix, size=size, within_s=left, grace_s=grace_s)
        echo = _with_probe(found, patience, action)
        if not echo.is_open:
            found.sizes[size] = echo
        if not echo.came_back:
            return


def _echoing_prefix(found: Visit) -> str | None:
    """Return where a message came back; where only the program itself listens, if possible."""
    paths = found.link.paths
    if found.listens is not None and found.listens.came_back:
        return paths.listens
    if found.publishes is not None and found.publishes.came_back:
        return paths.publishes
    return None


def _echo_of_size(
    probe: BrokerProbe, *, prefix: str, size: int, within_s: float, grace_s: float
) -> Echo:
    topic_name = f"{prefix}/{secrets.token_hex(8)}"
    probe.subscribe(topic_name, within_s, retained=False)
    return probe.echoes([(topic_name, bytes(size))], within_s, grace_s)[0]


def _with_probe(found: Visit, patience: Patience, action: Callable[[BrokerProbe], Echo]) -> Echo:
    probe = _probe(found.address, found.version)
    answer = probe.connect(patience.left())
    try:
        return Echo(refusal=answer.problem) if answer.problem else action(probe)
    finally:
        probe.close()


def _ask_whether_kept(found: Visit, patience: Patience) -> None:
    """Connect, leave, and connect again; then the session is ended for good."""
    if patience.is_over:
        return
    mqtt_client_id = _client_id()
    answers = []
    for is_kept in (True, True, False):
        probe = BrokerProbe(found.address, found.version, mqtt_client_id, is_kept=is_kept)
        answers.append(probe.connect(patience.left()))
        probe.close()
    if all(answer.problem is None for answer in answers):
        found.is_kept = answers[1].session_present


def _probe(address: BrokerAddress, version: Version) -> BrokerProbe:
    return BrokerProbe(address, version, _client_id(), is_kept=False)


def _client_id() -> str:
    return f"fedfleet-doctor-{secrets.token_hex(6)}"
