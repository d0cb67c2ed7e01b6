"""What the gateway's use cases stand on: its database."""
