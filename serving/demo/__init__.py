"""The demo player."""
