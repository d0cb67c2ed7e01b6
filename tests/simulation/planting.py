"""What a planted bug is; the modules of mutants put theirs into ``MUTANTS`` as they are imported."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

Change = tuple[Any, str, Any]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One planted bug.

    Attributes:
        name: What is wrong, in words.
        changes: Objects, names and what takes their place; made anew for each use.
    """

    name: str
    changes: Callable[[], tuple[Change, ...]]

    @contextmanager
    def planted(self) -> Iterator[None]:
        with ExitStack() as stack:
            for owner, attribute, value in self.changes():
                stack.enter_context(patch.object(owner, attribute, value))
            yield


MUTANTS: list[Mutant] = []


def mutant(name: str) -> Callable[[Callable[[], tuple[Change, ...]]], None]:
    def add(changes: Callable[[], tuple[Change, ...]]) -> None:
        MUTANTS.append(Mutant(name, changes))

    return add
