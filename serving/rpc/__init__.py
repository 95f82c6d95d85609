"""gRPC: the protocols of `serving.api` in protobuf, on a port of its own."""

# Calls that a worker handles at a time; each holds a thread, even while it waits for its batch.
THREADS = 32
