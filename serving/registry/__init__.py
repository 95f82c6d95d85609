"""The models on disk: their versions, and which of them are served."""
