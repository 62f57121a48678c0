"""Read a Keras model as a graph of few kinds of steps, for targets that write programs."""
