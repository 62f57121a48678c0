"""Take one model of the zoo through quantal; print a line of JSON after each stage.

    KERAS_BACKEND=torch python benchmarks/zoo_trial.py MobileNetV2

`zoo.py` runs it in a process of its own, so that memory is the model's and a crash is one row.
Seconds are those of the processor, all threads together: they do not depend on what else runs.
"""

import json
import os
import pathlib
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops
from zoo_models import MODELS, inputs_of

import quantal
from quantal.testing import assert_listed

LONGEST_MESSAGE = 300
MEBIBYTE = 2**10  # of ru_maxrss, which counts in KiB


def outputs_of(model: keras.Model, x: Any) -> list[np.ndarray]:
    return [np.asarray(y) for y in keras.tree.flatten(model.predict(x, verbose=0))]


def check_equal(model: keras.Model, x: Any, expected: list[np.ndarray]) -> None:
    """Raise an error unless a model predicts the same to the bit."""
    check_same(outputs_of(model, x), expected)


def check_same(results: list[np.ndarray], expected: list[np.ndarray]) -> None:
    """Raise an error unless arrays are the same to the bit."""
    if len(results) != len(expected):
        raise AssertionError(f"{len(results)} outputs for {len(expected)}")
    for result, array in zip(results, expected, strict=True):
        if result.dtype != array.dtype or result.tobytes() != array.tobytes():
            difference = np.abs(result.astype(float) - array).max()
            spread = np.abs(array).max()
            raise AssertionError(f"differs by {difference:.2g}, outputs to {spread:.2g}")


def fit_a_step(model: keras.Model, x: Any) -> None:
    """Train for one step, towards zeros, whatever the outputs are."""
    targets = keras.tree.map_structure(lambda y: np.zeros_like(y), model.predict(x, verbose=0))
    losses = keras.tree.map_structure(lambda y: "mse", targets)
    # Metrics, too: Keras keeps those of an earlier `compile` otherwise.
    metrics = [losses] if isinstance(losses, str) else losses
    model.compile(keras.optimizers.SGD(1e-3), losses, metrics=metrics, weighted_metrics=[])
    history = model.fit(x, targets, epochs=1, verbose=0).history
    if not np.isfinite(history["loss"]).all():
        raise AssertionError(f"the loss is {history['loss']}")


def generated(model: keras.Model, x: dict[str, Any]) -> list[np.ndarray]:
    """Return what a language model of keras-hub writes behind the first half of its inputs."""
    prompts = {name: np.array(array) for name, array in x.items()}
    mask = prompts["decoder_padding_mask" if "decoder_padding_mask" in x else "padding_mask"]
    mask[:, mask.shape[1] // 2 :] = 0
    return [np.asarray(y) for y in keras.tree.flatten(model.generate(prompts, stop_token_ids=None))]


def smallest_size(model: keras.Model) -> float:
    """Return the bytes that no file can go below: the codes' entropy and all other numbers."""
    bits, known = 0.0, set()
    for parameter in quantal.parameters_of(model):
        counts = np.unique(ops.convert_to_numpy(parameter.codes), return_counts=True)[1]
        shares = counts / counts.sum()
        bits -= float((counts * np.log2(shares)).sum())
        known.add(id(parameter.latent))
        if parameter.scale is not None:
            scale = ops.convert_to_numpy(parameter.scale)
            bits += 32 * scale.size
        bits += 32 * np.asarray(parameter.values.numbers).size
        known |= {id(variable) for variable in parameter.other_variables}
    others = [v for v in model.weights if id(v) not in known]
    return bits / 8 + sum(ops.convert_to_numpy(v.value).nbytes for v in others)


class Trial:
    """A trial runs a model's stages and prints what came of each."""

    def __init__(self) -> None:
        self.failed: set[str] = set()

    def report(self, **row: Any) -> None:
        print(json.dumps(row), flush=True)

    def stage(self, name: str, function: Callable[[], Any], *, after: str = "") -> Any:
        """Run a stage, unless one that it needs failed; print its seconds or its error."""
        if after in self.failed:
            self.failed.add(name)
            self.report(**{name: "-"})
            return None
        start = time.process_time()
        try:
            result = function()
        except Exception as error:  # The row says what happened.
            traceback.print_exc()
            self.failed.add(name)
            text = " ".join(str(error).split())[:LONGEST_MESSAGE]
            self.report(**{name: f"{type(error).__name__}: {text}"})
            return None
        self.report(**{name: "+", f"{name}_seconds": round(time.process_time() - start, 2)})
        return result


def cloned(model: keras.Model) -> keras.Model:
    """Return what Keras itself takes to copy a model: the measure of our seconds."""
    try:
        new = keras.models.clone_model(model)
        new.set_weights(model.get_weights())
    except Exception:  # Of some models of keras-hub only the class can make another.
        new = type(model).from_config(model.get_config())
        new.set_weights(model.get_weights())
    return new


def run(name: str, folder: pathlib.Path) -> None:
    keras.utils.set_random_seed(0)
    trial = Trial()
    model = trial.stage("make", MODELS[name])
    if model is None:
        return
    x = inputs_of(model)
    trial.report(numbers=model.count_params())
    trial.stage("plain", lambda: outputs_of(model, x))
    trial.stage("clone", lambda: cloned(model))
    discrete = trial.stage("discretize", lambda: quantal.discretize(model, "ternary"))
    if discrete is None:
        return
    trial.report(
        listed=len(quantal.parameters_of(discrete)),
        **{"class": "+" if isinstance(discrete, type(model)) else type(discrete).__name__},
    )
    trial.stage("assert_listed", lambda: assert_listed(discrete, x))
    trial.stage("fit", lambda: fit_a_step(discrete, x))
    expected = trial.stage("predict", lambda: outputs_of(discrete, x))
    if expected is None:
        return
    path = folder / "model.quantal"
    size = trial.stage("save", lambda: quantal.save(discrete, path))
    if size is not None:
        trial.report(bytes=size, bound=round(smallest_size(discrete)))
    baked = None
    copies = {
        "load": lambda: quantal.load(path),
        "bake": lambda: quantal.bake(discrete),
        "finalize": lambda: quantal.finalize(discrete),
    }
    for kind, function in copies.items():
        copy = trial.stage(kind, function, after="save" if kind == "load" else "")
        trial.stage(f"{kind}_equal", partial(check_equal, copy, x, expected), after=kind)
        baked = copy if kind == "bake" else baked
    if hasattr(discrete, "generate"):
        # After a sampler's first words its state has moved, in each model by itself.
        words = trial.stage("generate", lambda: generated(discrete, x))
        trial.stage("generate_equal", lambda: check_same(generated(baked, x), words), after="bake")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        run(sys.argv[1], pathlib.Path(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"mebibytes": peak // MEBIBYTE, "done": True}), flush=True)


if __name__ == "__main__":
    if "KERAS_BACKEND" not in os.environ:
        sys.exit("Set KERAS_BACKEND.")
    main()
