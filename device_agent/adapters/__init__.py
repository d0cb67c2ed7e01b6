"""The agent's database, its hardware and its training thread."""
