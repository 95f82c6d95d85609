"""Decides about the rows of a file, in blocks, and writes the decisions into another."""
