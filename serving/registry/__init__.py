"""The models on the disk: which versions there are, and which are served."""
