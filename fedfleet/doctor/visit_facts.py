"""What a visit to a broker has met: facts, which others judge."""

from dataclasses import dataclass, field

from fedfleet.doctor.subject import Link
from schemas.limits import KIB, MAX_HEADER_BYTES, MAX_INLINE_BYTES, MAX_PAYLOAD_BYTES
from transport.broker_url import BrokerAddress
from transport.dialect import Version
from transport.probe_answers import Answer, Echo, Heard
from transport.reaching import Handshake, Step

#: Payloads that are tried, the smallest first; the last two are what the programs need and use.
NEEDED_BYTES = MAX_INLINE_BYTES + MAX_HEADER_BYTES
SIZES = (2 * KIB, 16 * KIB, 128 * KIB, NEEDED_BYTES, MAX_PAYLOAD_BYTES)


@dataclass(slots=True)
class Visit:
    """What was met, as far as the way led.

    Attributes:
        link: Whose session it stands for.
        address: The broker.
        name: Whether its name has an address.
        port: Whether its port is open.
        tls: What became of the handshake; None where there is none.
        version: The version of MQTT that was spoken.
        login: What it said to CONNECT.
        refused: Filters that it did not grant, and why.
        publishes: What became of a message where the program publishes.
        listens: What became of one where the program listens.
        sizes: What became of larger and larger ones.
        is_kept: Whether the broker kept a session; None: not tried.
        heard: What others said.
    """

    link: Link
    address: BrokerAddress
    name: Step
    port: Step | None = None
    tls: Handshake | None = None
    version: Version = "5"
    login: Answer | None = None
    refused: dict[str, str] = field(default_factory=dict)
    publishes: Echo | None = None
    listens: Echo | None = None
    sizes: dict[int, Echo] = field(default_factory=dict)
    is_kept: bool | None = None
    heard: list[Heard] = field(default_factory=list)
