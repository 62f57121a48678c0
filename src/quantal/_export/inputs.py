"""Ask a model that is exported for its inputs, or say why they are not known."""

import keras

from quantal._core.types import Tensor
from quantal._models.inputs import symbolic_inputs


def inputs_of(model: keras.Model) -> Tensor:
    """Return a model's symbolic inputs in the structure that its call takes.

    Raises:
        ValueError: Keras does not know them, as for a subclassed model.
    """
    symbolic = symbolic_inputs(model)
    if symbolic is None:
        raise ValueError(
            f"The model {model.name!r} of type {type(model).__name__} does not tell its inputs. "
            "Expected a Sequential or functional model. Call it on a keras.Input and make a "
            "keras.Model of that and of its output, or export to '.npz'."
        )
    return symbolic
