"""An integer model computes in NumPy what its C computes, to the bit."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal._export.graph.steps import Floats, Function
from quantal._export.integer.comparison import Comparison, KerasReference, compared
from quantal._export.integer.layer_steps import IntegerStep, LookedUp, SimpleRecurrent
from quantal._export.integer.meaning import Affine
from quantal._export.integer.program import IntegerInput, IntegerProgram
from quantal._export.integer.steps import Integers, Products


class IntegerModel:
    """An integer model computes a network in integers: int8 between layers, int32 sums.

    `quantal.to_integer` creates it. `run` is the reference of the integer arithmetic: integers
    in, integers out, to the bit what the C of `quantal.export(model, "net.c", target="c_integer")`
    computes. `predict` takes and returns the floats that these stand for.

    Attributes:
        program: The inputs, steps and outputs.

    >>> import keras, numpy as np
    >>> from quantal import Discrete, DiscreteActivation, to_integer
    >>> layers = [keras.Input((4,)), DiscreteActivation("binary")]
    >>> layers += [Discrete(keras.layers.Dense(2, use_bias=False), "binary")]
    >>> integer = to_integer(keras.Sequential(layers))
    >>> integer.run(np.array([[1, 1, -1, -1]])).dtype
    dtype('int32')
    """

    def __init__(self, program: IntegerProgram, reference: KerasReference | None = None) -> None:
        self.program = program
        self._reference = reference

    @property
    def scales(self) -> list[float]:
        """What an integer 1 of each output stands for."""
        return [_scale_of(output.meaning.maps) for output in self.program.outputs]

    @property
    def left_to_floats(self) -> list[str]:
        """The names of functions at the outputs that `run` leaves off and `predict` computes."""
        return [
            each.name if isinstance(each, Function) else type(each).__name__.lower()
            for output in self.program.outputs
            for each in output.meaning.maps
            if not isinstance(each, Affine)
        ]

    @property
    def number_of_weights(self) -> int:
        """The count of numbers in the weights of its products and in tables of rows."""
        return sum(_weights_of(node.step) for node in self.program.nodes)

    def run(self, codes: Any) -> Any:
        """Return the outputs as integers.

        Args:
            codes: Integers, shape (samples, *the input's): pixels from 0 to 255, or what
                `codes` returns; a list of arrays where the model has several inputs.

        Returns:
            int32 of shape (samples, *the output's); a list where there are several outputs.

        Raises:
            TypeError: The codes are no integers.
            ValueError: They have another shape, or are beyond the input's range.
        """
        arrays = [
            _checked_codes(array, each)
            for array, each in zip(self._listed(codes), self.program.inputs, strict=True)
        ]
        values = self.program.values(*arrays)
        outputs = [
            values[output.value].reshape(-1, *output.shape).astype(np.int32)
            for output in self.program.outputs
        ]
        return outputs[0] if len(outputs) == 1 else outputs

    def codes(self, x: Any) -> Any:
        """Return the integers of float inputs: of the nearest values, or the pixels.

        Args:
            x: Inputs as the Keras model takes them.

        Returns:
            The integers in the smallest type that holds them, in the structure of x.

        Raises:
            ValueError: The input is one of pixels, and a number is no whole one from 0 to 255.
        """
        codes = [
            _codes_of(np.asarray(array), each)
            for array, each in zip(self._listed(x), self.program.inputs, strict=True)
        ]
        return codes[0] if len(codes) == 1 else codes

    def predict(self, x: Any) -> Any:
        """Return the float outputs, computed in integers but for a softmax or such at the end.

        Args:
            x: Inputs as the Keras model takes them.

        Returns:
            float32 of shape (samples, *the output's); a list where there are several outputs.
        """
        integers = self.run(self.codes(x))
        arrays = [integers] if len(self.program.outputs) == 1 else integers
        outputs = [
            output.meaning.numbers(array.reshape(len(array), -1).astype(np.float64))
            .reshape(array.shape)
            .astype(np.float32)
            for array, output in zip(arrays, self.program.outputs, strict=True)
        ]
        return outputs[0] if len(outputs) == 1 else outputs

    def compare(self, x: Any) -> Comparison:
        """Compare the integer network with the Keras model that it was converted from.

        Args:
            x: Inputs as the Keras model takes them.

        Returns:
            For each activation on a list, how many codes differ and by how many steps of the
            list at most; and the outputs. It prints as a table.

        Raises:
            ValueError: The integer model was loaded without the Keras model.
        """
        if self._reference is None:
            raise ValueError(
                "The integer model has no Keras model to compare with. Expected one that "
                "quantal.to_integer returned in this process. Convert the model again."
            )
        codes = self._listed(self.codes(x))
        flat = [np.asarray(array).reshape(len(array), -1) for array in codes]
        outputs = self.predict(x)
        outputs = [outputs] if len(self.program.outputs) == 1 else outputs
        return compared(self.program, self.program.values(*flat), outputs, self._reference, x)

    def _listed(self, x: Any) -> Sequence[Any]:
        count = len(self.program.inputs)
        arrays = [x] if count == 1 and not isinstance(x, list | tuple) else list(x)
        if len(arrays) != count:
            raise ValueError(
                f"There are {len(arrays)} arrays. Expected {count}, one for each input."
            )
        return arrays

    def __getstate__(self) -> dict[str, Any]:
        # Without Keras, so that a process without a backend can load it.
        return {"program": self.program, "_reference": None}

    def __repr__(self) -> str:
        names = [type(node.step).__name__ for node in self.program.nodes]
        return f"<IntegerModel of {len(names)} steps: {', '.join(names)}>"


def _weights_of(step: IntegerStep) -> int:
    match step:
        case Products():
            return step.weights.size
        case LookedUp():
            return step.table.size
        case SimpleRecurrent():
            return step.inputs.weights.size + step.states.weights.size
    return 0


def _scale_of(maps: Sequence[Any]) -> float:
    first = maps[0] if maps else None
    return float(first.factor[0]) if isinstance(first, Affine) else 1.0


def _codes_of(x: NDArray[Any], given: IntegerInput) -> NDArray[Any]:
    """Return the integers of one float input."""
    flat = x.reshape(len(x), -1)
    codes: Integers | Floats
    if given.grid is not None:
        codes = given.grid.nearest(flat.astype(np.float64))
    else:
        codes = flat
        wrong = ~(
            (flat == np.rint(flat)) & (flat >= given.bounds.low) & (flat <= given.bounds.high)
        )
        if wrong.any():
            what = f"{given.kind}, whole numbers from {given.bounds.low} to {given.bounds.high}"
            way = (
                "Give the numbers of rows, as the first layer looks them up."
                if given.kind == "rows"
                else "Put a quantal.DiscreteActivation before the first layer, or train on pixels "
                "with a keras.layers.Rescaling first."
            )
            raise ValueError(f"The inputs hold {flat[wrong][0]:g}. Expected {what}. {way}")
    return codes.astype(given.bounds.dtype).reshape(x.shape)


def _checked_codes(codes: Any, given: IntegerInput) -> Integers:
    """Return the codes of one input, shape (samples, size)."""
    array = np.asarray(codes)
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"codes are of the type {array.dtype}. Expected integers. Give floats to predict, or "
            "turn them into codes with the method codes."
        )
    if array.shape[1:] != given.shape:
        raise ValueError(
            f"codes have the shape {array.shape}. Expected (samples, "
            f"{', '.join(map(str, given.shape))})."
        )
    low, high = given.bounds
    if array.size and not low <= array.min() <= array.max() <= high:
        raise ValueError(
            f"codes lie from {array.min()} to {array.max()}. Expected integers from {low} to "
            f"{high}."
        )
    return array.reshape(len(array), -1).astype(np.int64)
