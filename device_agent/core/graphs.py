"""Which training graphs stay: the next round of a task names the same one."""

from collections.abc import Iterable
from itertools import accumulate

from schemas.messages import ObjectManifest

#: A device that works for many tasks in turn keeps the graphs of the newest jobs.
GRAPHS_LOOKED_AT = 32


def graphs_to_keep(newest: Iterable[ObjectManifest], max_bytes: int) -> frozenset[str]:
    """Return the digests of the newest graphs that fit together; one that never fits is left out.

    Args:
        newest: The graphs of past and present jobs, newest first.
        max_bytes: Most bytes that they may take.
    """
    graphs = [graph for graph in newest if graph.size <= max_bytes]
    totals = accumulate(graph.size for graph in graphs)
    return frozenset(
        graph.sha256 for graph, total in zip(graphs, totals, strict=True) if total <= max_bytes
    )
