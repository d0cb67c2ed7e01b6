"""Central's use cases: load, decide by the core, save and say, in one transaction."""
