"""Which operators random graphs have, and who places them."""

from functools import partial

OPERATORS = {}


def operator(*names):
    """Register a function that gives a graph one node, somewhere where the operator is smooth.

    It gets the sketch of the graph, and does nothing if the operator fits nowhere.
    """

    def register(function):
        OPERATORS.update({name: partial(function, operator=name) for name in names})
        return function

    return register
