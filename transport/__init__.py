"""How messages and large objects travel: MQTT sessions, transfers, and what must survive a crash."""
