"""One policy: its files, its network, and its decisions about a batch of rows."""
