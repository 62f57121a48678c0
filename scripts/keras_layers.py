"""A pytest plugin: Keras's own layer tests run with their layers wrapped in `Discrete`.

`scripts/test-keras-layers` runs it over Keras's tests. Each call of `run_layer_test` with a layer
that has a kernel (or an embedding) is made again with `Discrete(layer, values)`, and counts as

- passed;
- refused: quantal raised an error with words of its own, which are printed;
- plain: Keras's own layer does not pass here either;
- failed: all else. Of these there must be none.

Expected output numbers are left out, since listed weights give others; their shapes are kept, and
the wrapped layer is compared with the plain one that has the listed weights.
"""

import ast
import collections
import functools
import inspect
import linecache
import pathlib
import traceback
import warnings
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from keras.src.testing import test_case

import quantal

VALUES = [-1.0, 0.0, 1.0]
SEED = 1337
KERNELS = ("kernel", "embeddings")
"""What the names of weights end with that are restricted."""
LONGEST_MESSAGE = 400
LEAST_PASSED = 50
"""Fewer calls than these mean that Keras has changed its tests, and that hardly any was tried."""
FILTER = "keras/src/utils/traceback"
outcomes: dict[str, list[str]] = collections.defaultdict(list)
_plain_test = test_case.TestCase.run_layer_test
_current = ""


def call_of(layer_cls: Any, init_kwargs: Any, **kwargs: Any) -> tuple[Any, Any] | None:
    """Return a built layer and its inputs; None where the test gives no inputs."""
    data = kwargs.get("input_data")
    if data is None:
        shape = kwargs.get("input_shape")
        if shape is None:
            return None
        dtype = kwargs.get("input_dtype")
        if dtype is None:
            dtype = keras.tree.map_shape_structure(lambda _: "float32", shape)
        sparse, ragged = kwargs.get("input_sparse", False), kwargs.get("input_ragged", False)
        data = test_case.create_eager_tensors(shape, dtype, sparse, ragged)
    layer = layer_cls(**init_kwargs)
    call(layer, data, kwargs.get("call_kwargs") or {})
    return layer, data


def call(layer: Any, data: Any, call_kwargs: Any) -> Any:
    """Call a layer as `run_layer_test` does."""
    return layer(**data, **call_kwargs) if isinstance(data, dict) else layer(data, **call_kwargs)


def kernels_of(layer: keras.Layer) -> list[str]:
    """Return the names of a layer's weights that belong on a list."""
    names = {weight.name for weight in layer.weights}
    return sorted(name for name in names if name.endswith(KERNELS))


def is_refusal(error: BaseException) -> bool:
    """Return whether quantal itself raised an error: its last line there is a `raise`."""
    if not isinstance(error, (ValueError, TypeError, NotImplementedError)):
        return False
    # Keras's traceback filter raises errors again.
    frames = [f for f in traceback.extract_tb(error.__traceback__) if FILTER not in f.filename]
    if not frames or "/quantal/" not in frames[-1].filename:
        return False
    line = linecache.getline(frames[-1].filename, frames[-1].lineno or 0)
    return line.strip().startswith("raise ")


def check_numbers(plain: keras.Layer, wrapped: keras.Layer, data: Any, call_kwargs: Any) -> None:
    """Compare a wrapped layer with the plain one that has its listed weights."""
    call(wrapped, data, call_kwargs)
    listed = {id(p.latent): p.weight for p in quantal.parameters_of(wrapped)}
    for variable, source in zip(plain.weights, wrapped.layer.weights, strict=True):
        variable.assign(listed.get(id(source), source.value))
    expected = keras.tree.flatten(call(plain, data, call_kwargs))
    results = keras.tree.flatten(call(wrapped, data, call_kwargs))
    for result, tensor in zip(results, expected, strict=True):
        np.testing.assert_allclose(
            ops.convert_to_numpy(result), ops.convert_to_numpy(tensor), rtol=1e-5, atol=1e-5
        )


def run_wrapped(self: Any, layer_cls: Any, init_kwargs: Any, *args: Any, **kwargs: Any) -> None:
    """Run the test of a layer around which there is a `Discrete`."""
    bound = inspect.signature(_plain_test).bind(self, layer_cls, init_kwargs, *args, **kwargs)
    kwargs = {
        name: value
        for name, value in bound.arguments.items()
        if name not in ("self", "layer_cls", "init_kwargs")
    }
    init_kwargs = init_kwargs or {}
    # An error of the plain layer is what its test expects.
    built = call_of(layer_cls, init_kwargs, **kwargs)
    kernels = kernels_of(built[0]) if built else []
    if built is None or not kernels:
        outcomes["without a kernel"].append(_current)
        return
    layer, data = built

    def wrap(**options: Any) -> quantal.Discrete:
        # Without a state of its own, so that Keras's counts of variables hold.
        estimator = "straight_through"
        return quantal.Discrete(
            layer_cls(**options), VALUES, kernels, estimator=estimator, seed=SEED
        )

    expected = kwargs.pop("expected_output", None)
    if expected is not None:
        shapes = keras.tree.map_structure(lambda x: tuple(np.shape(x)), expected)
        kwargs["expected_output_shape"] = shapes
    try:
        _plain_test(self, wrap, init_kwargs, **kwargs)
        call_kwargs = kwargs.get("call_kwargs") or {}
        if not call_kwargs.get("training") and not is_sparse(data):
            check_numbers(layer, wrap(**init_kwargs), data, call_kwargs)
    except Exception as error:
        record(self, error, layer_cls, init_kwargs, kwargs)
    else:
        outcomes["passed"].append(_current)


def is_sparse(data: Any) -> bool:
    """Return whether an input is sparse: NumPy does not compare those."""
    return any(getattr(x, "is_sparse", False) for x in keras.tree.flatten(data))


def record(self: Any, error: Exception, layer_cls: Any, init_kwargs: Any, kwargs: Any) -> None:
    """Say what came of a test that raised an error."""
    text = " ".join(str(error).split())[:LONGEST_MESSAGE]
    line = f"{_current}, {layer_cls.__name__}({init_kwargs}): {type(error).__name__}: {text}"
    if is_refusal(error):
        outcomes["refused"].append(line)
        return
    try:
        _plain_test(self, layer_cls, init_kwargs, **kwargs)
    except Exception:
        outcomes["plain"].append(line)
    else:
        outcomes["failed"].append(line + "\n" + "".join(traceback.format_exception(error)[-3:]))


def pytest_configure(config: pytest.Config) -> None:
    """Put the wrapped test in the place of Keras's."""
    test_case.TestCase.run_layer_test = run_wrapped
    warnings.simplefilter("ignore")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests that call `run_layer_test`."""
    # Cases of a parameterized test have a name with something behind.
    items[:] = [item for item in items if item.name.startswith(names_of_tests(item.path))]


@functools.cache
def names_of_tests(path: pathlib.Path) -> tuple[str, ...]:
    """Return the names of a file's functions that call `run_layer_test`."""
    text = path.read_text()
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)]
    return tuple(
        f.name for f in functions if "run_layer_test" in (ast.get_source_segment(text, f) or "")
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Remember which test runs."""
    global _current
    _current = item.nodeid.split("/")[-1]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what came of the tests."""
    write = terminalreporter.write_line
    for kind in ("refused", "plain", "failed"):
        for line in outcomes[kind]:
            write(f"{kind}: {line}")
    counts = [f"{len(outcomes[kind])} {kind}" for kind in ("passed", "refused", "plain", "failed")]
    write(f"run_layer_test through Discrete on {keras.backend.backend()}: {', '.join(counts)}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where a wrapped layer failed, and where hardly any was tried."""
    session.exitstatus = 1 if outcomes["failed"] or len(outcomes["passed"]) < LEAST_PASSED else 0
