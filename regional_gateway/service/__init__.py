"""The gateway's use cases: load, decide by the core's rule, save, and say what to send."""
