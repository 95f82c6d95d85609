"""Decides the rows of a file, in blocks, and writes the decisions to another file."""
