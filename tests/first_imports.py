"""Runs each statement from standard input as the first of a process; prints those that fail.

A fresh process for each would load the backend again, which takes seconds. So Keras is loaded
once and forgotten, and each statement runs in a fork, in which neither Keras nor quantal is
imported yet. After the statement, Keras must know quantal's classes.
"""

import os
import sys
import traceback

# Keras's dependencies stay loaded.
import keras

for name in [name for name in sys.modules if name.split(".")[0] == "keras"]:
    del sys.modules[name]
del keras

KNOWN = """
import keras
for word in ("Discrete", "LearnableMultiplier", "StraightThrough", "Dampening"):
    assert keras.saving.get_registered_object(f"quantal>{word}"), f"{word} is not registered"
"""


def runs(statement: str) -> bool:
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    try:
        assert "quantal" not in sys.modules
        exec(statement, {})
        exec(KNOWN, {})
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


for line in sys.stdin:
    if not runs(line.strip()):
        print(line.strip())
