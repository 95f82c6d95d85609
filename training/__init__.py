"""Learn a policy on a Gymnasium environment and export it as a TensorFlow SavedModel."""

__version__ = "0.1.0"
