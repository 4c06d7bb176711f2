"""The Keras model that trains a robust classifier, and what a run needs."""
