"""Build and train a model twice, on listed weights and on free ones, and compare."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, r2_score

from quantal._command.backend import load_model
from quantal._command.datasets import Dataset, Split
from quantal._command.errors import Unfit
from quantal._core.numbers.values import Values
from quantal._core.parameter import parameters_of
from quantal._models.discretize import discretize
from quantal._models.walk import is_container, outermost_layers
from quantal.callbacks.pacing import PaceToRun
from quantal.layers.discrete import Discrete
from quantal.layers.multiplier import LearnableMultiplier

LEARNING_RATE = 0.01


@dataclasses.dataclass(frozen=True)
class Training:
    """A training is described by its epochs, its batches and the seed of their order."""

    epochs: int
    batch_size: int
    seed: int


@dataclasses.dataclass(frozen=True)
class Pair:
    """A pair is a model with weights from the list, and the same with free float weights.

    Both take features scaled by the training rows, shape (rows, features), and give
    probabilities or logits of the classes, or the scaled target.
    """

    discrete: keras.Model
    free: keras.Model


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A comparison holds both models' predictions for the held-out rows, and their scores.

    Attributes:
        model: The discrete model, from features as in the data to predictions.
        discrete: The discrete model's predictions: classes as integers, or numbers.
        free: The float model's predictions.
        discrete_score: Accuracy or R^2 of the discrete model.
        free_score: Accuracy or R^2 of the float model.
    """

    model: keras.Model
    discrete: NDArray[Any]
    free: NDArray[Any]
    discrete_score: float
    free_score: float

    @property
    def codes(self) -> NDArray[np.int32]:
        """The codes of all parameters of the model stand here, one after another."""
        parameters = parameters_of(self.model)
        return np.concatenate([keras.ops.convert_to_numpy(p.codes).ravel() for p in parameters])


def build_pair(model: str, dataset: Dataset, values: Values, estimator: str, seed: int) -> Pair:
    """Build a model twice, with the first weights that both have in common alike.

    Args:
        model: "multiplier", "mlp" or the path of a .keras file.
        dataset: The data to be trained on.
        values: The list.
        estimator: Its name.
        seed: The seed of the first weights.

    Raises:
        Unreadable: The file is missing or is no model.
        Unfit: The model in it takes or gives other shapes, is not made of layers that can
            be replaced, or has none to replace.
    """
    if model == "multiplier":
        multiplier = LearnableMultiplier(values, estimator=estimator, name="multiplier")
        return _twice(lambda listed: _multiplier(dataset, multiplier if listed else None), seed)
    if model == "mlp":

        def discrete(layer: keras.Layer) -> keras.Layer:
            return Discrete(layer, values, estimator=estimator, name=f"discrete_{layer.name}")

        return _twice(lambda listed: _mlp(dataset, discrete if listed else _same), seed)
    free = load_model(model)
    _check_shapes(model, free, dataset)
    rules = {f"^{re.escape(path)}$": values for path in _kernels(model, free)}
    keras.utils.set_random_seed(seed)
    return Pair(discretize(free, rules, scale=None, estimator=estimator), free)


def _twice(build: Callable[[bool], keras.Model], seed: int) -> Pair:
    keras.utils.set_random_seed(seed)
    discrete = build(True)
    keras.utils.set_random_seed(seed)
    return Pair(discrete, build(False))


def _same(layer: keras.Layer) -> keras.Layer:
    return layer


def _output(dataset: Dataset) -> keras.Layer:
    activation = None if dataset.labels is None else "softmax"
    return layers.Dense(dataset.outputs, activation=activation, name="output")


def _multiplier(dataset: Dataset, multiplier: keras.Layer | None) -> keras.Model:
    columns = dataset.features.shape[1]
    free = layers.EinsumDense(
        "bi,i->bi", output_shape=(columns,), kernel_initializer="ones", name="multiplier"
    )
    return keras.Sequential([keras.Input((columns,)), multiplier or free, _output(dataset)])


def _mlp(dataset: Dataset, wrapped: Callable[[keras.Layer], keras.Layer]) -> keras.Model:
    stack: list[Any] = [keras.Input((dataset.features.shape[1],))]
    for number in (1, 2):
        hidden = layers.Dense(64, use_bias=False, name=f"hidden_{number}")
        stack += [wrapped(hidden), layers.BatchNormalization(), layers.ReLU()]
    return keras.Sequential([*stack, _output(dataset)])


def _check_shapes(path: str, model: keras.Model, dataset: Dataset) -> None:
    if not is_container(model):
        raise Unfit(
            f"The model {path} is of the class {type(model).__name__}. Expected a Sequential or "
            "functional model, whose layers can be replaced. Build it from keras.Input on."
        )
    if not model.built:
        raise Unfit(
            f"The model {path} is not built, so it has no weights. Expected a model with weights "
            "to start from. Begin it with keras.Input before saving."
        )
    takes = [(tuple(tensor.shape), tensor.dtype) for tensor in model.inputs]
    gives = [tuple(tensor.shape) for tensor in model.outputs]
    columns = dataset.features.shape[1]
    shapes_fit = [shape[1:] for shape, _ in takes] == [(columns,)] and [
        shape[1:] for shape in gives
    ] == [(dataset.outputs,)]
    if not shapes_fit or "float" not in takes[0][1]:
        took = ", ".join(f"{shape} {dtype}" for shape, dtype in takes)
        raise Unfit(
            f"The model {path} takes {took} and gives {', '.join(map(str, gives))}. For "
            f"{dataset.task} on {dataset.name}, expected one input (None, {columns}) of floats "
            f"and one output (None, {dataset.outputs}). Begin the model with "
            f"keras.layers.Reshape if it takes images, and end it with Dense({dataset.outputs})."
        )


def _kernels(path: str, model: keras.Model) -> list[str]:
    """Return the paths of the kernels but for those of the last layer, which stays free."""
    kernels = []
    for layer in outermost_layers(model):
        if getattr(layer, "discrete_parameters", None):
            raise Unfit(
                f"The model {path} already has a layer of quantal's, {layer.name!r}. Expected a "
                "model of plain Keras layers. Give the model as it was before."
            )
        paths = [variable.path for variable in layer.variables if variable.name == "kernel"]
        if paths:
            kernels.append((layer.name, paths))
    if len(kernels) < 2:
        names = ", ".join(name for name, _ in kernels) or "none"
        raise Unfit(
            f"The model {path} has no layer to put on the list: those with a kernel are {names}. "
            "Expected at least two, as the last one stays float. Add a hidden layer such as "
            "Dense."
        )
    return [kernel for _, paths in kernels[:-1] for kernel in paths]


def fit(
    model: keras.Model,
    dataset: Dataset,
    parts: Split,
    training: Training,
    on_epoch_end: Callable[[], None],
) -> None:
    """Train a model of a pair; the same seed gives each of the two the same batches."""
    features = _scaled(parts.features, dataset.features[parts.training])
    target = dataset.target[parts.training]
    if parts.target is not None:
        target = _scaled(parts.target, target[:, None])
    model.compile(keras.optimizers.Adam(LEARNING_RATE), _loss(model, features, dataset))
    callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: on_epoch_end())]
    # Estimators that harden in training do so in time for the end of the run.
    if any(parameter.state is not None for parameter in parameters_of(model)):
        callbacks.append(PaceToRun())
    keras.utils.set_random_seed(training.seed)
    model.fit(
        features,
        target,
        epochs=training.epochs,
        batch_size=training.batch_size,
        callbacks=callbacks,
        verbose=0,
    )


def _scaled(scaler: Any, numbers: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(scaler.transform(numbers.astype(np.float64)), np.float32)


def _loss(model: keras.Model, features: NDArray[np.float32], dataset: Dataset) -> Any:
    if dataset.labels is None:
        return "mean_squared_error"
    # A model from a file may end in probabilities or in logits, by whichever layer.
    outputs = keras.ops.convert_to_numpy(model(features[:256], training=False))
    outputs = outputs[np.isfinite(outputs).all(axis=1)]
    sums_to_one = np.allclose(outputs.sum(axis=1), 1, atol=1e-3)
    is_probability = bool(np.all(outputs >= 0) and sums_to_one)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=not is_probability)


def compare(pair: Pair, dataset: Dataset, parts: Split) -> Comparison:
    """Predict the held-out rows with both models, from features as in the data.

    Raises:
        Unfit: A model predicts NaN or infinity.
    """
    score = r2_score if dataset.labels is None else accuracy_score
    model, free = on_raw_features(pair.discrete, parts), on_raw_features(pair.free, parts)
    target = dataset.target[parts.held_out]
    discrete_predictions = _predictions(model, dataset, parts)
    free_predictions = _predictions(free, dataset, parts)
    return Comparison(
        model=model,
        discrete=discrete_predictions,
        free=free_predictions,
        discrete_score=float(score(target, discrete_predictions)),
        free_score=float(score(target, free_predictions)),
    )


def on_raw_features(model: keras.Model, parts: Split) -> keras.Model:
    """Return the model between layers that scale features and unscale predictions."""
    scaler, target = parts.features, parts.target
    # In two steps: a single factor and offset cancel where a mean is large.
    stack: list[Any] = [
        keras.Input((len(scaler.mean_),)),
        layers.Rescaling(1.0, (-scaler.mean_).tolist(), name="center"),
        layers.Rescaling((1 / scaler.scale_).tolist(), name="scale"),
    ]
    stack += model.layers if isinstance(model, keras.Sequential) else [model]
    if target is not None:
        deviation, mean = target.scale_.tolist(), target.mean_.tolist()
        stack.append(layers.Rescaling(deviation, mean, name="unscale"))
    return keras.Sequential(stack)


def _predictions(model: keras.Model, dataset: Dataset, parts: Split) -> NDArray[Any]:
    outputs = np.asarray(model.predict(dataset.features[parts.held_out], verbose=0))
    if not np.all(np.isfinite(outputs)):
        raise Unfit(
            f"The trained model predicts NaN or infinity on {dataset.name}. Expected finite "
            "numbers. Give a list of smaller values, or look for rows or columns of huge "
            "numbers in the data."
        )
    predictions: NDArray[Any] = outputs[:, 0] if dataset.labels is None else outputs.argmax(axis=1)
    return predictions
