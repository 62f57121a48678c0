"""Read a Keras model as a chain of few kinds of steps, for targets that write programs."""
