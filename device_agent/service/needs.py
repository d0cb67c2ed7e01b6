"""What jobs need before they can train: a model or the deltas that lead to it, perhaps a graph."""

from device_agent.core.backend import needs_graph
from device_agent.core.chains import newest_here, shortest
from device_agent.service.downloads import Downloads
from device_agent.service.ports import Work
from device_agent.service.records import JobRecord, JobStore
from device_agent.service.surroundings import Surroundings
from schemas.messages import Assignment, ModelDelta, ObjectManifest

#: A device that works for many tasks in turn keeps the models of the newest jobs.
MODELS_LOOKED_AT = 32

#: A manifest, never inline, and the digests of its chunks.
Wanted = tuple[ObjectManifest, bytes]


class Needs:
    """Compares what jobs need with what is here."""

    def __init__(self, store: JobStore, downloads: Downloads, surroundings: Surroundings) -> None:
        self._store = store
        self._downloads = downloads
        self._surroundings = surroundings

    def admit_deltas(
        self, assignment: Assignment, tail: bytes
    ) -> tuple[tuple[ModelDelta, ...], bytes]:
        """Return an assignment's deltas, none of them inline, and their chunks' digests.

        An inline delta is stored.

        Raises:
            PayloadError: A delta and its part of the tail do not fit together.
        """
        parts = assignment.delta_tails(tail)
        admitted = [
            (delta, *self._downloads.admit(delta.object, part))
            for delta, part in zip(assignment.deltas, parts, strict=True)
        ]
        deltas = tuple(
            delta.model_copy(update={"object": manifest}) for delta, manifest, _ in admitted
        )
        return deltas, b"".join(digests for _, _, digests in admitted)

    def of(self, record: JobRecord) -> list[Wanted]:
        """Return what a job needs before it can train, here or not."""
        chain = self._chain(record)
        model = [(one.object, record.digests_of(one)) for one in chain]
        model = model or [(record.model, record.digests)]
        if record.graph is None or not needs_graph(record.plan, self._backend(record)):
            return model
        return [*model, (record.graph, record.graph_digests)]

    def missing(self, record: JobRecord) -> list[Wanted]:
        """Return what of it is not here."""
        return [one for one in self.of(record) if not self._downloads.is_here(one[0].sha256)]

    def waiting_for(self, sha256_prefix: str) -> list[JobRecord]:
        """Return the jobs that need an object."""
        return [
            record
            for record in self._store.active()
            if any(one.sha256.startswith(sha256_prefix) for one, _ in self.of(record))
        ]

    def wanted(self) -> frozenset[str]:
        """Return the SHA-256 of all that jobs need, and of what their models are made of."""
        return frozenset(
            sha256 for record in self._store.active() for sha256 in self._wanted_by(record)
        )

    def models_to_keep(self) -> list[ObjectManifest]:
        """Return the newest model that is here of each task that sends deltas."""
        return newest_here(self._store.newest_models(MODELS_LOOKED_AT), self._downloads.has)

    def work_of(self, record: JobRecord) -> Work:
        """Return a job as the training thread does it."""
        backend = self._backend(record)
        graph = record.graph if needs_graph(record.plan, backend) else None
        chain = self._chain(record)
        return Work(
            record.key,
            record.plan,
            record.model.sha256,
            backend or "none",
            None if graph is None else graph.sha256,
            base_sha256=chain[0].base if chain else None,
            deltas=tuple(delta.object.sha256 for delta in chain),
            start=record.job.starts,
        )

    def _backend(self, record: JobRecord) -> str | None:
        return self._surroundings.backend(record.plan, has_graph=record.graph is not None)

    def _chain(self, record: JobRecord) -> tuple[ModelDelta, ...]:
        """Return the deltas that give a job its model; none: it is here, or is pulled whole."""
        if not record.deltas or self._downloads.is_here(record.model.sha256):
            return ()
        return shortest(record.deltas, self._downloads.has)

    def _wanted_by(self, record: JobRecord) -> list[str]:
        bases = [one.base for one in self._chain(record)[:1]]
        return [record.model.sha256, *bases, *(one.sha256 for one, _ in self.of(record))]
