"""A whole fleet on one machine: broker, central, gateways and devices as processes."""
