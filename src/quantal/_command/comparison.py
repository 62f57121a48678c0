"""Build and train a model twice, on listed weights and on free ones, and compare."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, r2_score

from quantal._command.backend import load_model
from quantal._command.datasets import Dataset
from quantal._command.errors import Unfit
from quantal._core.numbers.values import Values
from quantal._core.parameter import parameters_of
from quantal._models.discretize import discretize
from quantal._models.walk import is_container, outermost_layers
from quantal.callbacks.finishing import Finish
from quantal.callbacks.pacing import PaceToRun
from quantal.layers.discrete import Discrete
from quantal.layers.multiplier import LearnableMultiplier

MODELS = ("multiplier", "mlp")
LEARNING_RATE = 0.01


class Training(NamedTuple):
    """A training is described by its epochs, its batches and the seed of their order."""

    epochs: int
    batch_size: int
    seed: int


class Pair(NamedTuple):
    """A pair is a model with weights from the list, and the same with free float weights.

    Both take features scaled by the training rows, shape (rows, features), and give
    probabilities or logits of the classes, or the scaled target.
    """

    discrete: keras.Model
    free: keras.Model


class Comparison(NamedTuple):
    """A comparison has predictions for the held-out rows and their scores, discrete first.

    Attributes:
        model: The discrete model, from features as in the data to predictions.
        predictions: Classes as integers, or numbers, shape (held-out rows,): of the discrete
            model, and of the free one once it is trained.
        scores: Accuracy or R^2 of the same models.
    """

    model: keras.Model
    predictions: list[NDArray[Any]]
    scores: list[float]


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
    if model not in MODELS:
        return _pair_from_file(model, dataset, values, estimator, seed)
    columns = dataset.features.shape[1]
    multiplier = LearnableMultiplier(values, estimator=estimator, name="multiplier")

    def build(is_listed: bool) -> keras.Model:
        keras.utils.set_random_seed(seed)
        stack: list[keras.Layer] = []
        if model == "multiplier":
            free = layers.EinsumDense(
                "bi,i->bi", output_shape=(columns,), kernel_initializer="ones", name="multiplier"
            )
            stack.append(multiplier if is_listed else free)
        else:
            for name in ("hidden_1", "hidden_2"):
                hidden = layers.Dense(64, use_bias=False, name=name)
                if is_listed:
                    hidden = Discrete(hidden, values, estimator=estimator, name=f"discrete_{name}")
                stack += [hidden, layers.BatchNormalization(), layers.ReLU()]
        activation = None if dataset.labels is None else "softmax"
        output = layers.Dense(dataset.outputs, activation=activation, name="output")
        return keras.Sequential([keras.Input((columns,)), *stack, output])

    return Pair(build(True), build(False))


def _pair_from_file(path: str, dataset: Dataset, values: Values, estimator: str, seed: int) -> Pair:
    """Load a model, and put each kernel but those of the last layer that has one on the list."""
    free = load_model(path)
    takes, gives = (None, dataset.features.shape[1]), (None, dataset.outputs)
    is_plain = is_container(free) and free.built and not parameters_of(free)
    if not is_plain or (free.input_shape, free.output_shape) != (takes, gives):
        shapes = f", {free.input_shape} to {free.output_shape}" if is_plain else ""
        raise Unfit(
            f"The model {path} is a {type(free).__name__}{shapes}. Expected a Sequential or "
            f"functional model of plain Keras layers from keras.Input on, {takes} to {gives}, for "
            f"{dataset}. Begin it with Reshape if it takes images, and end it with such a Dense."
        )
    if "float" not in free.inputs[0].dtype:
        raise Unfit(f"The model {path} takes {free.inputs[0].dtype}. Expected floats.")
    kernels = [
        [variable.path for variable in layer.variables if variable.name == "kernel"]
        for layer in outermost_layers(free)
    ]
    last = [paths for paths in kernels if paths][-1:]
    rules: dict[str, Values | None] = {
        f"^{re.escape(kernel)}$": None for paths in last for kernel in paths
    }
    rules["(^|/)kernel$"] = values
    keras.utils.set_random_seed(seed)
    try:
        return Pair(discretize(free, rules, scale=None, estimator=estimator), free)
    except ValueError as error:
        raise Unfit(f"All but the last kernel of {path} shall go on the list. {error}") from error


def fit(
    model: keras.Model,
    dataset: Dataset,
    training: Training,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Train a model of a pair; the same seed gives each of the two the same batches."""
    features = _scaled(dataset.feature_scaler, dataset.features[dataset.training])
    target = dataset.target[dataset.training]
    if dataset.target_scaler is not None:
        target = _scaled(dataset.target_scaler, target[:, None])
    model.compile(keras.optimizers.Adam(LEARNING_RATE), _loss(model, features, dataset))
    # Estimators that harden in training do so in time for the end of the run.
    paces = any(parameter.state is not None for parameter in parameters_of(model))
    pacing = [PaceToRun()] if paces else []
    keras.utils.set_random_seed(training.seed)
    model.fit(
        features,
        target,
        epochs=training.epochs,
        batch_size=training.batch_size,
        # A polish ends by the clock, and the same seed shall give the same files.
        callbacks=[*callbacks, *pacing, Finish(polish=False)],
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


def compare(models: Sequence[keras.Model], dataset: Dataset) -> Comparison:
    """Predict the held-out rows from features as in the data.

    Args:
        models: The discrete model as `on_raw_features` returns it, and the free one if it is
            trained.
        dataset: The data.

    Raises:
        Unfit: A model predicts NaN or infinity.
    """
    score = r2_score if dataset.labels is None else accuracy_score
    predictions = [_predictions(model, dataset) for model in models]
    scores = [float(score(dataset.target[dataset.held_out], rows)) for rows in predictions]
    return Comparison(models[0], predictions, scores)


def on_raw_features(model: keras.Model, dataset: Dataset) -> keras.Model:
    """Return the model between layers that scale features and unscale predictions."""
    scaler, target = dataset.feature_scaler, dataset.target_scaler
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


def _predictions(model: keras.Model, dataset: Dataset) -> NDArray[Any]:
    outputs = np.asarray(model.predict(dataset.features[dataset.held_out], verbose=0))
    if not np.all(np.isfinite(outputs)):
        raise Unfit(
            f"The trained model predicts NaN or infinity on {dataset.name}. Expected finite "
            "numbers. Give a list of smaller values, or look for rows or columns of huge "
            "numbers in the data."
        )
    predictions: NDArray[Any] = outputs[:, 0] if dataset.labels is None else outputs.argmax(axis=1)
    return predictions
