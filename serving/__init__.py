"""Serve exported policies over HTTP, and play with them."""
