"""Which topic filters match a topic name (MQTT 3.1.1, section 4.7)."""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from schemas.errors import WireError

MAX_FILTER_BYTES = 65535

KeyT = TypeVar("KeyT")


class FilterError(WireError):
    """A topic filter breaks the grammar of section 4.7.1 or is a shared subscription."""

    code = "E_TOPIC"


def check_filter(topic_filter: str) -> None:
    """Refuse a filter that no subscription may have.

    Raises:
        FilterError: It is empty, too long, has a wildcard inside a level, ``#`` before its end,
            a null character, or is a shared subscription (``$share/``).
    """
    levels = topic_filter.split("/")
    wild_inside = any(len(level) > 1 and ("+" in level or "#" in level) for level in levels)
    if not topic_filter or len(topic_filter.encode()) > MAX_FILTER_BYTES or "\0" in topic_filter:
        problem = f"must have 1 to {MAX_FILTER_BYTES} bytes and no null character"
    elif wild_inside or "#" in levels[:-1]:
        problem = "a wildcard fills a whole level, and # only the last one"
    elif levels[0] == "$share":
        problem = "shared subscriptions are not supported"
    else:
        return
    message = f"topic filter {topic_filter[:80]!r}: {problem}"
    raise FilterError(message)


def matches(topic_filter: str, name: str) -> bool:
    """Return whether a valid filter matches a topic name."""
    wanted, levels = topic_filter.split("/"), name.split("/")
    if name.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for i, level in enumerate(wanted):
        if level == "#":
            return True
        if i >= len(levels) or level not in ("+", levels[i]):
            return False
    return len(wanted) == len(levels)


@dataclass(slots=True)
class _Node(Generic[KeyT]):
    children: dict[str, "_Node[KeyT]"] = field(default_factory=dict)
    holders: dict[KeyT, int] = field(default_factory=dict)


class FilterTree(Generic[KeyT]):
    """Who holds which filters; finds the holders of a name without trying every filter."""

    def __init__(self) -> None:
        self._root: _Node[KeyT] = _Node()

    def add(self, topic_filter: str, key: KeyT, qos: int) -> None:
        """Record that ``key`` holds a filter; a repeated one takes the new QoS."""
        node = self._root
        for level in topic_filter.split("/"):
            node = node.children.setdefault(level, _Node())
        node.holders[key] = qos

    def remove(self, topic_filter: str, key: KeyT) -> None:
        """Forget that ``key`` holds a filter, if it does."""
        path = [self._root]
        levels = topic_filter.split("/")
        for level in levels:
            node = path[-1].children.get(level)
            if node is None:
                return
            path.append(node)
        path[-1].holders.pop(key, None)
        for parent, level in zip(reversed(path[:-1]), reversed(levels), strict=True):
            child = parent.children[level]
            if child.children or child.holders:
                return
            del parent.children[level]

    def match(self, name: str) -> dict[KeyT, int]:
        """Return each holder of a matching filter once, with the highest QoS that it holds."""
        found: dict[KeyT, int] = {}
        nodes = [self._root]
        for i, level in enumerate(name.split("/")):
            wild = i > 0 or not name.startswith("$")
            following = []
            for node in nodes:
                if wild and "#" in node.children:
                    _keep_highest(found, node.children["#"].holders)
                if level in node.children:
                    following.append(node.children[level])
                if wild and "+" in node.children:
                    following.append(node.children["+"])
            nodes = following
        for node in nodes:
            _keep_highest(found, node.holders)
            if "#" in node.children:
                _keep_highest(found, node.children["#"].holders)
        return found


def _keep_highest(found: dict[KeyT, int], holders: dict[KeyT, int]) -> None:
    for key, qos in holders.items():
        found[key] = max(qos, found.get(key, 0))
