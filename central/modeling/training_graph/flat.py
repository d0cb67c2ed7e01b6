"""Between the one vector that travels and the tensors that a graph computes with.

The vector follows a ``Layout``. Running statistics may lie between trainable tensors; the
optimizer works on the trainable ones alone, in the layout's order.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import accumulate, groupby

from central.modeling.training_graph.builder import GraphBuilder
from updates.layout import Layout, TensorSpec


@dataclass(frozen=True, slots=True)
class FlatVector:
    """The vector of a layout of which some tensors are running statistics.

    Attributes:
        layout: Of the whole vector.
        statistics: Names of the tensors that the optimizer leaves alone.
    """

    layout: Layout
    statistics: Collection[str]

    @property
    def trainable(self) -> list[TensorSpec]:
        """The tensors that the optimizer moves, in order."""
        return [spec for spec in self.layout.tensors if spec.name not in self.statistics]

    @property
    def trainable_size(self) -> int:
        """Number of values that the optimizer moves."""
        return sum(spec.size for spec in self.trainable)

    def slices(self) -> dict[str, slice]:
        """Return where each trainable tensor lies in the whole vector."""
        whole = self.layout.slices()
        return {spec.name: whole[spec.name] for spec in self.trainable}

    def trainable_slices(self) -> dict[str, slice]:
        """Return where each trainable tensor lies among the trainable values alone."""
        ends = accumulate((spec.size for spec in self.trainable), initial=0)
        return {
            spec.name: slice(start, start + spec.size)
            for spec, start in zip(self.trainable, ends, strict=False)
        }

    def split(self, builder: GraphBuilder, vector: str) -> None:
        """Give every tensor its slice of the vector, under the tensor's own name."""
        parts = [
            spec.name if len(spec.shape) == 1 else builder.fresh("slice")
            for spec in self.layout.tensors
        ]
        _split(builder, vector, [spec.size for spec in self.layout.tensors], parts)
        for spec, part in zip(self.layout.tensors, parts, strict=True):
            if part != spec.name:
                shape = builder.integers(*spec.shape)
                builder.emit("Reshape", part, shape, output=spec.name)

    def joined(self, builder: GraphBuilder, tensors: Mapping[str, str], output: str) -> str:
        """Concatenate one tensor for every trainable one, under the name ``output``."""
        flat = [
            _flattened(builder, tensors[spec.name], len(spec.shape)) for spec in self.trainable
        ]
        return _concat(builder, flat, output)

    def without_statistics(self, builder: GraphBuilder, vector: str) -> str:
        """Return the trainable values of a vector of the whole layout."""
        if not self.statistics:
            return vector
        runs = self._runs()
        parts = [builder.fresh("run") for _ in runs]
        _split(builder, vector, [sum(spec.size for spec in run) for run in runs], parts)
        kept = [part for part, run in zip(parts, runs, strict=True) if self._is_trained(run)]
        return _concat(builder, kept, builder.fresh("trainable"))

    def with_statistics(
        self, builder: GraphBuilder, values: str, running: Mapping[str, str], output: str
    ) -> str:
        """Put trainable values and new statistics together in the layout's order.

        Args:
            builder: Gets the nodes.
            values: Trainable values, shape ``(trainable_size,)``.
            running: New statistics; one that is missing keeps its old value.
            output: Name of the whole vector.
        """
        runs = self._runs()
        trained = [run for run in runs if self._is_trained(run)]
        parts = [builder.fresh("run") for _ in trained]
        _split(builder, values, [sum(spec.size for spec in run) for run in trained], parts)
        left = iter(parts)
        pieces = []
        for run in runs:
            if self._is_trained(run):
                pieces.append(next(left))
            else:
                pieces.extend(running.get(spec.name, spec.name) for spec in run)
        return _concat(builder, pieces, output)

    def _runs(self) -> list[list[TensorSpec]]:
        """Return neighbours of one kind together, in order."""
        groups = groupby(self.layout.tensors, key=lambda spec: spec.name in self.statistics)
        return [list(group) for _, group in groups]

    def _is_trained(self, run: list[TensorSpec]) -> bool:
        return run[0].name not in self.statistics


def _split(builder: GraphBuilder, vector: str, sizes: list[int], outputs: list[str]) -> None:
    if len(outputs) == 1:
        builder.emit("Identity", vector, output=outputs[0])
    else:
        lengths = builder.integers(*sizes)
        builder.emit_many("Split", vector, lengths, outputs=outputs, axis=0)


def _flattened(builder: GraphBuilder, tensor: str, rank: int) -> str:
    return tensor if rank == 1 else builder.emit("Reshape", tensor, builder.integers(-1))


def _concat(builder: GraphBuilder, parts: list[str], output: str) -> str:
    if len(parts) == 1:
        return builder.emit("Identity", parts[0], output=output)
    return builder.emit("Concat", *parts, axis=0, output=output)
