"""gRPC: the protocols of `serving.api` in protobuf, on a port of its own."""

# Calls that a worker handles at a time; those of one batch wait in a thread each.
THREADS = 32
