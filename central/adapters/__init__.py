"""What central needs from outside: SQLite, object files, one worker thread."""
