"""How messages and large objects travel, and what of it must survive a crash."""
