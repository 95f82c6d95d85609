"""Learn a policy on a Gymnasium environment and export it as a TensorFlow SavedModel."""
