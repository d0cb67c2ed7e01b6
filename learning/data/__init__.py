"""Data sources, and how one dataset is split among devices."""
