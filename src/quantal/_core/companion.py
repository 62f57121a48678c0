"""Variables that train only while another variable does."""

from typing import Any

import keras

from quantal._core.keras_internals.layers import track_variable


class Companion(keras.Variable):
    """A companion is a variable that trains only while its leader does.

    A scale and a learned list are companions of their latent: whoever freezes the latent,
    by the flag of any layer around it, before or after it is built, freezes them with it.
    A companion can also be frozen by itself.

    Attributes:
        leader: The variable that it follows; None for none.
    """

    leader: keras.Variable | None = None

    @property
    def trainable(self) -> bool:
        """Whether the companion trains: both its flag and its leader's say so."""
        return self._trainable and (self.leader is None or self.leader.trainable)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        keras.Variable.trainable.fset(self, value)


def add_companion(layer: keras.Layer, leader: keras.Variable, **arguments: Any) -> Companion:
    """Add a companion to the weights of a layer, as `layer.add_weight` adds a variable.

    Args:
        layer: The layer.
        leader: The variable that the companion follows.
        **arguments: The arguments of `keras.Variable`.
    """
    with keras.name_scope(layer.name, caller=layer):
        companion = Companion(**arguments)
    # Keras's files go by the order of trainable variables and others, which no flag may change:
    # so the leader comes after the companion was counted among the trainable ones.
    track_variable(layer, companion)
    companion.leader = leader
    return companion
