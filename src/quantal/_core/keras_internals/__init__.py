"""Keras's private names are used in this folder and in no other.

Keras has no public way to ask for what these functions return. Each has a test in
`tests/test_keras_internals.py` that fails when a new Keras no longer has the name.
"""
