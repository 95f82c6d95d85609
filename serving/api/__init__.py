"""HTTP: one blueprint per protocol. Handlers decode, call and encode."""
