"""The front door: one command line, and the fleet on one machine."""
