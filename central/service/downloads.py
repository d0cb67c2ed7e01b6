"""Models and graphs on their way out: a gateway asks for chunks of one and gets them."""

from collections.abc import Iterator

from central.service.desk import Desk
from schemas.limits import DEFAULT_CHUNK_BYTES
from schemas.messages import Get
from schemas.topics import Address, Kind, Topic
from transport.events import Outgoing
from transport.objects import read_block


class Downloads:
    """Serves chunks of the models and graphs of tasks; anything else is not there."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def get(self, region: str, question: Get) -> Iterator[Outgoing]:
        """Yield the chunks that a gateway wants; a chunk behind the end is left out."""
        if not self._desk.store.is_model(question.sha256):
            return
        path = self._desk.objects.path(question.sha256)
        for k in question.want:
            block = read_block(path, k, DEFAULT_CHUNK_BYTES)
            if block:
                address = Address.of_gateway(region)
                topic = Topic(Kind.BLOCK, address, sha16=question.sha256[:16], k=k)
                yield Outgoing(topic, block)
