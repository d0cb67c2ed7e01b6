"""How a device comes by a model when deltas lead to it, and which models it keeps for that."""

from collections.abc import Callable, Iterable, Sequence

from schemas.messages import ModelDelta, ObjectManifest


def shortest(
    deltas: Sequence[ModelDelta], is_here: Callable[[str], bool]
) -> tuple[ModelDelta, ...]:
    """Return the fewest deltas that lead from a model that is here; empty: none does.

    Args:
        deltas: The oldest first, each from the base of the next.
        is_here: Tells whether a model, by its digest, is here.
    """
    for start in reversed(range(len(deltas))):
        if is_here(deltas[start].base):
            return tuple(deltas[start:])
    return ()


def newest_here(
    models: Iterable[tuple[str, ObjectManifest]], is_here: Callable[[str], bool]
) -> list[ObjectManifest]:
    """Return for each task the newest of its models that is here: the next delta's base.

    Args:
        models: Task and model of each job, newest job first.
        is_here: Tells whether a model, by its digest, is here.
    """
    found: dict[str, ObjectManifest] = {}
    for task, model in models:
        if task not in found and is_here(model.sha256):
            found[task] = model
    return list(found.values())
