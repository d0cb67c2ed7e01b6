"""Steps of torch eager: ``python -m benchmarks.training.torch_steps``.

Its arguments are MODEL BATCH THREADS SECONDS.
"""

import sys

import torch
from torch import nn

from benchmarks.training.models import TIMED
from benchmarks.training.timing import report, timed

_LEARNING_RATE = 0.01


def main(name: str, batch: str, threads: str, budget_s: str) -> None:
    """Time the steps of one model: forward, loss, backward, SGD, and reading the loss."""
    torch.set_num_threads(int(threads))
    subject = TIMED[name]
    module = subject.module().train()
    x, y = map(torch.from_numpy, subject.batch(int(batch), seed=1))
    optimizer = torch.optim.SGD(module.parameters(), _LEARNING_RATE)

    def step() -> float:
        loss = nn.functional.cross_entropy(module(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    report(timed(step, float(budget_s)))


if __name__ == "__main__":
    main(*sys.argv[1:])
