"""What two processes must agree on: names, topics, messages, bytes. Pure: no I/O, no clock."""
