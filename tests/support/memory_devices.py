"""Devices that keep memories as the device agent does, in a few lines, to hold central against."""

from dataclasses import dataclass, field

import numpy as np

from updates import feedback, lazy
from updates.codecs import create


@dataclass
class MemoryDevice:
    """What one device keeps of a task, by round; ``update`` is what it sends for an assignment."""

    name: str
    layout: object
    examples: int = 10
    rows: dict = field(default_factory=dict)
    #: Of each round: the update that training gave, and what the payload decodes to.
    trained: dict = field(default_factory=dict)
    sent: dict = field(default_factory=dict)

    def update(self, assignment, vector):
        """Return (payload, reference) of an update, and keep what it leaves."""
        told = assignment.reference(self.name)
        self.rows = {number: row for number, row in self.rows.items() if number == told}
        held, plan, number = self.rows.get(told), assignment.plan, assignment.round
        codec = create(plan.codec, plan.codec_params)
        rng = np.random.default_rng(number)
        if plan.memory == "feedback":
            before = np.zeros(self.layout.size, np.float32) if held is None else held
            step = feedback.take_step(vector, before, codec, self.layout, rng)
            self.rows[number] = step.left_out
        else:
            terms = None
            if held is not None and assignment.lazy is not None:
                weight = assignment.lazy.weight(self.examples)
                terms = lazy.SkipTerms(assignment.lazy.threshold, weight)
            before = lazy.LazyMemory.first(self.layout.size) if held is None else held
            step = lazy.take_step(vector, before, codec, self.layout, rng, terms=terms)
            self.rows[number] = step.memory
        self.trained[number] = vector
        self.sent[number] = codec.decode(step.payload, self.layout)
        return step.payload, 0 if held is None else told

    def vector(self, number):
        """Return the vector that it holds of a lazy task's round."""
        return self.rows[number].reference
