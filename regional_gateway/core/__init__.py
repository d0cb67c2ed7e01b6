"""The gateway's rules: who is there, whom to ask, what to keep, what to answer. Pure."""
