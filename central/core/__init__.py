"""Central's rules: values in, values out; no clock, no disk, no network."""
