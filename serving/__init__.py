"""Serve exported policies over HTTP, and play with them."""

__version__ = "0.1.0"
