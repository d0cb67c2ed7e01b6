"""A device of the fleet: it keeps its data, trains what it is asked, and sends what it learned."""
