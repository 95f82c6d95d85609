"""HTTP: one blueprint a protocol. Handlers decode, call and encode."""
