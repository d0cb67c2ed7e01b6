"""What central needs from outside: SQLite, object files, the worker's threads."""
