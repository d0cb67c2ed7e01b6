"""Measurements of the programs as they are, on this machine; run from the repository's root."""
