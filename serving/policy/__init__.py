"""One policy: its files, its network, and a decision about a batch."""
