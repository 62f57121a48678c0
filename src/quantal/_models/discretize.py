"""Put the weights of a whole Keras model on lists."""

from typing import Any

import keras

from quantal._core.by_identity import ByIdentity
from quantal._core.parameter import parameters_of
from quantal._models.calibration.calibrate import Target
from quantal._models.calibration.calibrate import calibrate as calibrate_model
from quantal._models.calibration.flow import Models
from quantal._models.calibration.samples import Samples
from quantal._models.clone import clone_replacing, copy_value
from quantal._models.compile_like import compile_like, optimizers_of
from quantal._models.finalize import trainable
from quantal._models.inputs import symbolic_inputs
from quantal._models.parts import Fresh, Replacement
from quantal._models.rules import ListSpec, specs_of
from quantal._models.walk import check_model, outermost_layers
from quantal._models.weight_decay import exclude_from_weight_decay
from quantal.layers._first_values import values_follow
from quantal.layers.discrete import Discrete, unwrapped


def discretize(
    model: keras.Model,
    rules: Any,
    *,
    scale: Any = "auto",
    estimator: Any = "auto",
    keep_ends: bool = False,
    calibrate: Any = None,
    verbose: int = 1,
) -> keras.Model:
    """Return a new model with the weights that the rules name on lists.

    Use it on a trained model before fine-tuning, or on a new one. The old model is left
    as it is. Each new weight starts at the value nearest to the trained one; latents
    keep the weights' order. A compiled model comes back compiled alike, its optimizer
    new and without weight decay on latents (`exclude_from_weight_decay`).

    Train on with a plain `fit` and `quantal.callbacks.Finish()`, which ends a run well.

    `quantal.summary(new, compared_with=model, rules=rules)` says weight by weight which
    rule chose it, how many bits it takes, and what rounding alone loses.

    Args:
        model: A built Keras model: Sequential, functional (shared layers, several
            inputs and outputs, models inside), or subclassed, if its constructor creates
            its layers.
        rules: Which weights go on which list.

            - A list, a preset's name, `Values`, or a function from the trained weights
              (float32 array) to one of these: for every kernel. With at most 8 values
              kernels of a fan-in below 30 stay free while they are at most a fiftieth of the
              elements: the first one of a convnet on ±1 costs more accuracy than all others.
              An expression that names them, as `{"kernel": "binary"}`, takes them, too.
            - A mapping from regular expressions to the same, to None for weights that
              stay free, or to a full specification, a mapping with `"values"` and
              optionally `"scale"` and `"estimator"`. An expression is searched for in
              the weight's path; the first one with a match decides.

            Only kernels are taken (kernels, recurrent, depthwise and pointwise ones).
            Biases, normalisation, embeddings and others stay free, unless the
            expression spells the weight's name, as `"token.*/embeddings"` does.
        scale: `"auto"`: a learned scale for each output channel where the list's
            numbers are proportions (powers of two, integers, or 1 the largest
            magnitude), none elsewhere. None: the raw list. Or a `Scale` or a method's
            name. It starts at the least-squares fit to the trained weights.
        estimator: How gradients pass: an estimator, its name, or `"auto"`.
        keep_ends: Whether the first and the last layer that the rules name stay free.
        calibrate: Inputs of the model, without targets, some thousand samples of the training
            data; None to round each weight alone. With them the codes and scales of each kernel
            are chosen so that its outputs stay nearest to the trained ones, layer by layer, and
            biases and the statistics of batch normalization follow. It takes arrays, a list or
            dict of them, a `tf.data.Dataset`, a `keras.utils.PyDataset` or a PyTorch
            `DataLoader`; of a tuple, (x, y), x counts. `summary` says what each kernel loses.
        verbose: 1 shows the progress of a calibration, 0 nothing.

    Returns:
        A new model.

    Raises:
        TypeError: The model is no Keras model, or the samples are neither arrays nor batches.
        ValueError: It is not built; a rule names no weight; a layer cannot be reached,
            uses LoRA or is quantized; a list, scale or estimator is not valid; there are no
            samples, or a number of theirs is not finite.

    Example:
    >>> import keras, quantal
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="hidden"),
    ...                           keras.layers.Dense(2, name="last")], name="net")
    >>> discrete = quantal.discretize(model, {"hidden": "ternary"})
    >>> [parameter.path for parameter in quantal.parameters_of(discrete)]
    ['net/hidden/kernel']
    """
    check_model(model)
    samples = None if calibrate is None else Samples(calibrate, _batch_of(model))
    model = trainable(model)
    specs = specs_of(model, rules, scale, estimator, keep_ends)
    # Layers inside a composite layer go on lists with it, not by themselves.
    outermost = ByIdentity.of_keys(outermost_layers(model))

    def replace(layer: keras.Layer, fresh: Fresh) -> Replacement | None:
        is_listed = layer in outermost and any(v in specs for v in layer.weights)
        return _on_lists(layer, specs, fresh) if is_listed else None

    with values_follow():
        clone = clone_replacing(model, replace)
    new = clone.model
    parameters = ByIdentity([(parameter.latent, parameter) for parameter in parameters_of(new)])

    def set_weights() -> None:
        for old_variable, new_variable in clone.pairs:
            if old_variable in specs:
                parameters[new_variable].start_from(old_variable)
            else:
                copy_value(old_variable, new_variable)

    if model.compiled:
        # First, for the state has attributes that the class's own compile sets.
        compile_like(model, new)
        for optimizer in optimizers_of(new):
            exclude_from_weight_decay(optimizer, new)
    clone.set_state(set_weights)
    if samples is not None:
        targets = [
            Target(parameters[pair.new], pair.old) for pair in clone.pairs if pair.old in specs
        ]
        calibrate_model(Models(new, model), targets, samples, verbose)
    return new


def _batch_of(model: keras.Model) -> int | None:
    """Return the number of samples that a model is built for; None for any."""
    symbolic = keras.tree.flatten(symbolic_inputs(model))
    return next((tensor.shape[0] for tensor in symbolic if tensor.shape), None)


def _on_lists(layer: keras.Layer, specs: ByIdentity[ListSpec], fresh: Fresh) -> Replacement:
    """Replace a layer by a fresh one within a `Discrete` for each of its lists."""
    weights = unwrapped(layer).weights
    names = [variable.name for variable in weights]
    positions_of: dict[tuple[Any, ...], list[int]] = {}
    for position, variable in enumerate(weights):
        if variable in specs:
            positions_of.setdefault(specs[variable].group, []).append(position)
    inner = new = fresh(layer)
    for positions in positions_of.values():
        listed_names = sorted({names[position] for position in positions})
        named = [position for position, name in enumerate(names) if name in listed_names]
        spec = specs[weights[positions[0]]]
        new = Discrete(
            new,
            spec.values,
            # Names where they say it all: they outlast a change of the layer.
            listed_names if named == positions else positions,
            estimator=spec.estimator,
            scale=spec.scale,
            name=layer.name,
            trainable=layer.trainable,
        )
    return Replacement(new, inner, list(layer.weights))
