"""Aggregation rules, one a file, each with its source."""
