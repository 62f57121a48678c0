"""Keras's classes and modules belong to all threads: one thread at a time replaces a part."""

import threading

one_at_a_time = threading.RLock()
