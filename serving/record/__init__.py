"""What was decided, on record: off unless asked for."""
