"""A program that connects with a Will and then does nothing, to be killed by a test.

Usage: ``python brokers_victim.py URL PROTOCOL REGION DEVICE``; prints READY when connected.
"""

import queue
import sys
import time

from schemas.topics import Address, Kind, Topic
from transport.events import Connected, Outgoing
from transport.session import PahoSession


def main() -> None:
    url, protocol, region, device = sys.argv[1:5]
    topic = Topic(Kind.STATE, Address(region, device))
    events: queue.SimpleQueue[object] = queue.SimpleQueue()
    session = PahoSession(
        url,
        name="victim",
        mqtt_client_id=f"victim-{device}",
        filters=(),
        events=events,
        will=Outgoing(topic, b"offline"),
        protocol=protocol,
    )
    session.start()
    while not isinstance(events.get(timeout=10.0), Connected):
        pass
    session.publish(Outgoing(topic, b"online", token=1))
    events.get(timeout=10.0)
    sys.stdout.write("READY\n")
    sys.stdout.flush()
    time.sleep(60.0)


if __name__ == "__main__":
    main()
