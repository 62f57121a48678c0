"""Put the weights of a whole Keras model on lists."""

from typing import Any

import keras

from quantal._core.by_identity import ByIdentity
from quantal._core.numbers.knapsack import Choice
from quantal._models.activation_rules import calibrate_activations, with_activations
from quantal._models.calibration.calibrate import calibrate as calibrate_model
from quantal._models.calibration.moments import Models
from quantal._models.calibration.samples import Samples
from quantal._models.finalize import trainable
from quantal._models.inputs import symbolic_inputs
from quantal._models.limits import limit_of
from quantal._models.menu import Menu, chosen
from quantal._models.on_lists import put_on_lists
from quantal._models.probe import labelled_samples
from quantal._models.rules import specs_of
from quantal._models.walk import check_model


def discretize(
    model: keras.Model,
    rules: Any = None,
    *,
    scale: Any = "auto",
    estimator: Any = "auto",
    keep_ends: bool = False,
    calibrate: Any = None,
    budget: Any = None,
    bits: float | None = None,
    values: Any = None,
    data: Any = None,
    activations: Any = None,
    verbose: int = 1,
) -> keras.Model:
    """Return a new model with the weights that the rules name on lists, and maybe activations.

    Use it on a trained model before fine-tuning, or on a new one. The old model is left
    as it is. Each new weight starts at the value nearest to the trained one; latents
    keep the weights' order. A compiled model comes back compiled alike, its optimizer
    new and without weight decay on latents (`exclude_from_weight_decay`).

    Train on with a plain `fit` and `quantal.callbacks.Finish()`, which ends a run well.

    `quantal.summary(new, compared_with=model, rules=rules)` says weight by weight which
    rule chose it, how many bits it takes, and what rounding alone loses.

    With `budget` or `bits` each kernel gets the list of a menu with which the model fits and loses
    least: `discretize(model, budget="60 kB", values=["binary", "ternary"], data=x)`.

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
            expression spells the weight's name, as `"token.*/embeddings"` does. With a menu, a
            mapping, if any, says what does not go by it: the menu is for all other kernels.
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
        budget: The most bytes of all weights: a number, or a text such as `"60 kB"` or `"2 MiB"`.
            Weights that stay free count as they are, lists with the bytes of their packed codes
            in a file (1.6 bits an element of three values), scales and learned numbers. `save`
            writes the model's description, too, and fewer bytes where values are used unevenly.
        bits: Instead of `budget` the most bits for an element, scales among them, in the mean of
            the kernels that go by the menu.
        values: The menu, with `budget` or `bits`: a list or tuple of what may stand for a rule;
            None in it lets a kernel stay free.
        data: The samples, with `budget` or `bits`: inputs as for `calibrate`, or (x, y) or
            (x, y, sample_weight) or batches of these. What a kernel loses on a list is measured
            with this kernel alone calibrated: by how much the loss of the model rises, if there
            are targets and the model is compiled with a loss; else by how far its outputs move, as
            their mean square distance relative to their variance. The sum over kernels is least,
            exactly. Then the model is calibrated as with `calibrate`.
        activations: Which activations take listed values: a `DiscreteActivation` is put in a new
            graph behind them, or for them where it computes the same alone (a ReLU on a list from
            0, a hard_tanh or sign on ±1). With samples (`calibrate` or `data`) their scales start
            at the fit to these, else at that to the first training batch.

            - A list, a preset's name or `Values`: for every activation but those of outputs:
              layers such as ReLU and Activation, arguments `activation=` of Dense layers and
              convolutions, operations such as `keras.ops.relu`. Softmax stays.
            - A mapping from expressions on the names of layers to the same, to None, or to a
              mapping with `"values"` and optionally `"scale"`, `"estimator"` and `"axis"`. The
              first expression with a match decides.

            Rules for weights may then be left out. The scale is `"auto"` where none is named.
        verbose: 1 shows the progress of a measurement and a calibration, 0 nothing.

    Returns:
        A new model.

    Raises:
        TypeError: The model is no Keras model, or the samples are neither arrays nor batches.
        ValueError: It is not built; a rule names no weight or no activation; a layer cannot be
            reached,
            uses LoRA or is quantized; a list, scale or estimator is not valid; there are no
            samples, or a number of theirs is not finite; a budget is below the smallest size that
            the menu allows, or arguments of the two ways are mixed.

    Example:
    >>> import keras, quantal
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="hidden"),
    ...                           keras.layers.Dense(2, name="last")], name="net")
    >>> discrete = quantal.discretize(model, {"hidden": "ternary"})
    >>> [parameter.path for parameter in quantal.parameters_of(discrete)]
    ['net/hidden/kernel']
    """
    check_model(model)
    limit = limit_of(budget, bits, values, data)
    _refuse_contradictions(rules, limit, calibrate, activations)
    choices: ByIdentity[Choice] = ByIdentity()
    samples = None if calibrate is None else Samples(calibrate, _batch_of(model))
    labelled = None if limit is None else labelled_samples(data, _batch_of(model))
    model = trainable(model)
    if activations is not None:
        model = with_activations(model, activations)
        inputs = samples if labelled is None else labelled.inputs
        if inputs is not None:
            calibrate_activations(model, inputs)
    if limit is not None and labelled is not None:
        samples = labelled.inputs
        menu = Menu(rules, values, scale, estimator, keep_ends)
        specs, choices = chosen(model, menu, limit, labelled, verbose)
    elif rules is None:
        specs = ByIdentity()
    else:
        specs = specs_of(model, rules, scale, estimator, keep_ends)
    new, targets = put_on_lists(model, specs)
    for target in targets:
        if target.variable in choices:
            target.parameter.note_choice(choices[target.variable])
    if samples is not None and targets:
        calibrate_model(Models(new, model), targets, samples, verbose)
    return new


def _refuse_contradictions(rules: Any, limit: Any, calibrate: Any, activations: Any) -> None:
    if limit is None and rules is None and activations is None:
        raise ValueError(
            "discretize has neither rules nor a budget. Expected rules, such as 'ternary', or "
            "budget= or bits= with values= and data=, or activations=."
        )
    if limit is not None and calibrate is not None:
        raise ValueError(
            "calibrate came with a budget. Expected data alone, with which the model is also "
            "calibrated. Leave calibrate out."
        )


def _batch_of(model: keras.Model) -> int | None:
    """Return the number of samples that a model is built for; None for any."""
    symbolic = keras.tree.flatten(symbolic_inputs(model))
    # A subclassed model that was called may not say what it takes.
    shapes = (getattr(tensor, "shape", None) for tensor in symbolic)
    return next((shape[0] for shape in shapes if shape), None)
