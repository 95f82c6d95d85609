"""gRPC: the protocols of `serving.api` in protobuf, on a port of its own."""
