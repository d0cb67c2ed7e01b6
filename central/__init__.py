"""Central: takes tasks, selects clients, aggregates their updates, keeps the global model."""
