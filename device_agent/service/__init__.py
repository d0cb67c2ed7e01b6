"""The agent's use cases: what a message, a result or the clock changes, and what is sent."""
