"""gunicorn, and what its worker processes do."""
