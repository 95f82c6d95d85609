"""Records of decisions, and what is computed from decisions: off unless enabled."""
