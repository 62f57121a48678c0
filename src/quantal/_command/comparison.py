"""Build and train a model twice, on listed weights and on free ones, and compare."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from sklearn.utils.class_weight import compute_class_weight

from quantal._command.backend import load_model
from quantal._command.datasets import Dataset
from quantal._command.errors import Unfit
from quantal._command.scores import Scores, baseline_of, outputs_of, scores_of
from quantal._core.numbers.values import Values
from quantal._core.parameter import parameters_of
from quantal._core.tensors.distributed import whole_array
from quantal._models.discretize import discretize
from quantal._models.table_features import TableFeatures
from quantal._models.walk import is_container, outermost_layers
from quantal.callbacks.finishing import Finish
from quantal.callbacks.pacing import PaceToRun
from quantal.layers.discrete import Discrete
from quantal.layers.multiplier import LearnableMultiplier

MODELS = ("multiplier", "mlp")
LEARNING_RATE = 0.01
VALIDATION = 0.1
"""The share of the training rows that decides when a training with patience ends."""


class Training(NamedTuple):
    """A training is described by its epochs, its batches, and when it ends early.

    Attributes:
        epochs: Rounds over the training rows, at most.
        batch_size: Rows in a step.
        seed: The seed of the batches' order.
        patience: End after so many epochs without a lower loss on a tenth of the training rows,
            with the weights of the best; None for all epochs.
        balanced: Whether each class counts alike, however many rows it has.
    """

    epochs: int
    batch_size: int
    seed: int
    patience: int | None = None
    balanced: bool = False


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
        model: The discrete model, from rows of numbers to predictions.
        outputs: What the discrete model gives, and the free one once it is trained: probabilities
            of the classes, or one number, shape (held-out rows, classes or 1).
        scores: Their scores by name.
        baseline: The scores of the most frequent class, or of the mean, of the training rows.
        history: What Keras says after each epoch of the discrete model: a number by its name.
    """

    model: keras.Model
    outputs: list[NDArray[Any]]
    scores: list[Scores]
    baseline: Scores
    history: Sequence[dict[str, Any]] = ()


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
    columns = dataset.width
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


def build_free(model: str, dataset: Dataset) -> keras.Model:
    """Build the free model of a pair, or load it; see `build_pair`."""
    return build_pair(model, dataset, Values("binary"), "auto", 0).free


def _pair_from_file(path: str, dataset: Dataset, values: Values, estimator: str, seed: int) -> Pair:
    """Load a model, and put each kernel but those of the last layer that has one on the list."""
    free = load_model(path)
    takes, gives = (None, dataset.width), (None, dataset.outputs)
    fitting = [gives] if dataset.outputs != 2 else [gives, (None, 1)]
    is_plain = is_container(free) and free.built and not parameters_of(free)
    if not is_plain or free.input_shape != takes or free.output_shape not in fitting:
        shapes = f", {free.input_shape} to {free.output_shape}" if is_plain else ""
        raise Unfit(
            f"The model {path} is a {type(free).__name__}{shapes}. Expected a Sequential or "
            f"functional model of plain Keras layers from keras.Input on, {takes} to "
            f"{' or '.join(map(str, fitting))}, for {dataset}. Begin it with Reshape if it takes "
            "images, and end it with such a Dense."
        )
    if "float" not in free.inputs[0].dtype:
        raise Unfit(f"The model {path} takes {free.inputs[0].dtype}. Expected floats.")
    rules = rules_for(free, values)
    keras.utils.set_random_seed(seed)
    try:
        return Pair(discretize(free, rules, estimator=estimator), free)
    except ValueError as error:
        raise Unfit(f"All but the last kernel of {path} shall go on the list. {error}") from error


def rules_for(model: keras.Model, values: Any) -> dict[str, Any]:
    """Return the rules that put every kernel on a list but those of the last layer with one."""
    kernels = [
        [variable.path for variable in layer.variables if variable.name == "kernel"]
        for layer in outermost_layers(model)
    ]
    last = [paths for paths in kernels if paths][-1:]
    rules: dict[str, Any] = {f"^{re.escape(kernel)}$": None for paths in last for kernel in paths}
    return {**rules, "(^|/)kernel$": values}


def fit(
    model: keras.Model,
    dataset: Dataset,
    training: Training,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Train a model of a pair; the same seed gives each of the two the same batches."""
    features, target = scaled_rows(dataset, dataset.training)
    model.compile(keras.optimizers.Adam(LEARNING_RATE), loss_of(ending_of(model, dataset)))
    # Estimators that harden in training do so in time for the end of the run.
    paces = any(parameter.state is not None for parameter in parameters_of(model))
    added: list[keras.callbacks.Callback] = [PaceToRun()] if paces else []
    weights = class_weights_of(target) if training.balanced else None
    validation = None
    if training.patience is not None:
        features, target, validation = _with_validation(features, target, dataset, training.seed)
        added.append(
            keras.callbacks.EarlyStopping(patience=training.patience, restore_best_weights=True)
        )
    keras.utils.set_random_seed(training.seed)
    model.fit(
        features,
        target,
        epochs=training.epochs,
        batch_size=training.batch_size,
        validation_data=validation,
        class_weight=weights,
        # A polish ends by the clock, and the same seed shall give the same files.
        callbacks=[*callbacks, *added, Finish(polish=False)],
        verbose=0,
    )


def scaled_rows(
    dataset: Dataset, rows: NDArray[np.intp]
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Return the features and the target of some rows, as a model of a pair is trained on them."""
    features, target = _scaled(dataset.feature_scaler, dataset.expanded(rows)), dataset.target[rows]
    if dataset.target_scaler is not None:
        target = _scaled(dataset.target_scaler, target[:, None])
    return features, target


def _with_validation(
    features: NDArray[Any], target: NDArray[Any], dataset: Dataset, seed: int
) -> tuple[NDArray[Any], NDArray[Any], tuple[NDArray[Any], NDArray[Any]]]:
    """Return features and target of most training rows, and those of a tenth of them."""
    classes = None if dataset.labels is None else target
    try:
        x, x_validation, y, y_validation = train_test_split(
            features, target, test_size=VALIDATION, random_state=seed, stratify=classes
        )
    except ValueError as error:
        raise Unfit(
            f"A tenth of the training rows of {dataset.name} cannot be set aside for --patience: "
            f"{error} Give more rows of each class, or leave --patience out."
        ) from error
    return x, y, (x_validation, y_validation)


def class_weights_of(target: NDArray[Any]) -> dict[int, float]:
    """Return the weight of a row of each class with which all classes count alike."""
    classes = np.unique(target)
    weights = compute_class_weight("balanced", classes=classes, y=target)
    return {int(label): float(weight) for label, weight in zip(classes, weights, strict=True)}


def _scaled(scaler: Any, numbers: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(scaler.transform(numbers.astype(np.float64)), np.float32)


class Ending(NamedTuple):
    """An ending says what the last numbers of a model are.

    Attributes:
        is_number: They are the scaled target.
        is_single: There is one, of the second of two classes.
        is_probability: They are probabilities; else logits.
    """

    is_number: bool
    is_single: bool
    is_probability: bool


def ending_of(model: keras.Model, dataset: Dataset) -> Ending:
    """Return what a model ends in; one from a file may give probabilities or logits."""
    if dataset.labels is None:
        return Ending(True, False, False)
    features = _scaled(dataset.feature_scaler, dataset.expanded(dataset.training[:256]))
    outputs = whole_array(model(features, training=False))
    outputs = outputs[np.isfinite(outputs).all(axis=1)]
    is_single = outputs.shape[1] == 1
    is_whole = is_single or np.allclose(outputs.sum(axis=1), 1, atol=1e-3)
    return Ending(False, is_single, bool(is_whole and np.all((outputs >= 0) & (outputs <= 1.001))))


def loss_of(ending: Ending) -> Any:
    """Return the loss that a model with such an ending is trained with."""
    if ending.is_number:
        return "mean_squared_error"
    kind = keras.losses.SparseCategoricalCrossentropy
    if ending.is_single:
        kind = keras.losses.BinaryCrossentropy
    return kind(from_logits=not ending.is_probability)


def compare(models: Sequence[keras.Model], dataset: Dataset) -> Comparison:
    """Predict the held-out rows from rows of numbers.

    Args:
        models: The discrete model as `on_raw_features` returns it, and the free one if it is
            trained.
        dataset: The data.

    Raises:
        Unfit: A model predicts NaN or infinity.
    """
    target, labels = dataset.target[dataset.held_out], dataset.labels
    outputs = [outputs_of(model, dataset.features[dataset.held_out], dataset.name, labels)
               for model in models]  # fmt: skip
    scores = [scores_of(target, rows, labels) for rows in outputs]
    baseline = scores_of(target, baseline_of(dataset, len(target)), labels)
    return Comparison(models[0], outputs, scores, baseline)


def on_raw_features(model: keras.Model, dataset: Dataset) -> keras.Model:
    """Return the model between layers that expand and scale rows, and unscale predictions.

    It gives probabilities, whatever the model ends in; and it keeps how a table becomes rows.
    """
    scaler, target, encoding = dataset.feature_scaler, dataset.target_scaler, dataset.encoding
    plan, ending = encoding.plan, ending_of(model, dataset)
    # In two steps: a single factor and offset cancel where a mean is large.
    stack: list[Any] = [
        keras.Input((plan.width,)),
        TableFeatures(plan.to_dict(), encoding.to_dict(), name="table"),
        layers.Rescaling(1.0, (-scaler.mean_).tolist(), name="center"),
        layers.Rescaling((1 / scaler.scale_).tolist(), name="scale"),
    ]
    stack += model.layers if isinstance(model, keras.Sequential) else [model]
    if target is not None:
        deviation, mean = target.scale_.tolist(), target.mean_.tolist()
        stack.append(layers.Rescaling(deviation, mean, name="unscale"))
    elif not ending.is_probability:
        function = "sigmoid" if ending.is_single else "softmax"
        stack.append(layers.Activation(function, name="probabilities"))
    return keras.Sequential(stack)
