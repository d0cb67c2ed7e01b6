"""Trainers: they turn a job into an update."""
