"""Keras's private names are used in this file and in no other.

Keras has no public way to ask for what these functions return. Each has a test in
`tests/test_keras_internals.py` that fails when a new Keras no longer has the name.
"""

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, NamedTuple

import keras
from keras.src.applications.convnext import LayerScale, StochasticDepth
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer
from keras.src.backend.common import global_state
from keras.src.backend.common.variables import AutocastScope, get_autocast_scope
from keras.src.saving.serialization_lib import SafeModeScope
from keras.src.trainers.epoch_iterator import EpochIterator
from keras.src.utils.tracking import DotNotTrackScope

_LATE_VARIABLES = "uninitialized_variables"
"""The name under which Keras lists, for each thread, variables that have no numbers yet."""
_NAME_COUNTS = "object_name_uids"
"""The name under which Keras counts, for each thread, the names that it has given."""
_AnyVariable: Any = next(
    kind
    for kind in keras.Variable.__mro__
    if kind.__module__ == "keras.src.backend.common.variables"
)
"""The class whose constructor every backend's variables share."""
LAYER_SCALE = LayerScale
"""The class of the factors of channels in `keras.applications.ConvNeXt...`."""
STOCHASTIC_DEPTH = StochasticDepth
"""The class of what drops branches in training there; it does nothing in inference."""
SCALED_SUM = CustomScaleLayer
"""The class of the sums `x + scale * y` in `keras.applications.InceptionResNetV2`."""
_one_at_a_time = threading.RLock()


def flatten_layers(layer: keras.Layer) -> list[keras.Layer]:
    """Return a layer and all layers inside it, at every depth."""
    return list(layer._flatten_layers())


def own_variables(layer: keras.Layer) -> list[keras.Variable]:
    """Return the variables that a layer created itself, in the order of Keras's files."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def rename(variable: keras.Variable, name: str) -> None:
    """Give a variable another name, and its path the same last part."""
    variable._path = f"{variable.path.removesuffix(variable.name)}{name}"
    variable._name = name


def refresh_names(layer: keras.Layer) -> None:
    """List a layer's variables again where its backend lists them by path, as PyTorch does."""
    if not is_stateless() and hasattr(layer, "_torch_params"):
        layer._track_variables()


def is_stateless() -> bool:
    """Return whether a scope gives variables other tensors now, as `stateless_call` does."""
    return global_state.get_global_attribute("stateless_scope") is not None


def called_layer() -> keras.Layer | None:
    """Return the outermost layer that is called now, which is most often a model."""
    context = global_state.get_global_attribute("current_call_ctx")
    return None if context is None else context.entry_layer


def track_state(layer: keras.Layer, name: str, variable: keras.Variable) -> None:
    """Let TensorFlow's checkpoints hold a variable that is no weight of a layer, as a seed is."""
    if keras.config.backend() == "tensorflow":
        # TensorFlow's own list of what it tracks is an attribute that Keras would search.
        with DotNotTrackScope():
            layer._track_trackable(variable, name=name, overwrite=True)


def training_of_call() -> bool:
    """Return whether the call of a layer trains within which this is asked.

    Outside the call of any layer it is False.
    """
    context = global_state.get_global_attribute("current_call_ctx")
    return context is not None and bool(context.get_value("training"))


def is_inherited(training: bool | None) -> bool:
    """Return whether a layer that is called now inherits this argument from the call around it."""
    context = global_state.get_global_attribute("current_call_ctx")
    return (
        training is not None and context is not None and context.get_value("training") is training
    )


def without_autocast() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which variables are read in their own dtype, not a layer's."""
    if get_autocast_scope() is None:
        return contextlib.nullcontext()
    return AutocastScope(None)


def untrack(layer: keras.Layer, inner: keras.Layer) -> None:
    """Make a layer forget an inner layer that another attribute replaces."""
    layer._tracker.untrack(inner)


def track_variable(layer: keras.Layer, variable: keras.Variable) -> None:
    """Add a variable to the weights of a layer that is being built."""
    layer._track_variable(variable)


def layout_of(variable: keras.Variable) -> Any:
    """Return how a variable lies on several devices; None for one that lies on one."""
    distribution = keras.distribution.distribution()
    if variable._layout is not None or distribution is None:
        return variable._layout
    return distribution.get_variable_layout(variable)


def lay_out(variable: keras.Variable, paths: Sequence[str]) -> None:
    """Let a variable lie on several devices as a layout map says of the first path that it knows.

    Without a layout map, and where it knows none of the paths, the variable stays where it is.

    Args:
        variable: The variable, allocated or not.
        paths: The names under which the map may know it.
    """
    distribution = keras.distribution.distribution()
    layouts = () if distribution is None else map(distribution.get_tensor_layout, paths)
    layout = next((layout for layout in layouts if layout is not None), None)
    if layout is None or layout is variable._layout:
        return
    variable._layout = layout
    if variable._value is not None:
        variable.assign(variable._value)


def set_layers(layer: keras.Layer, name: str, value: Any) -> None:
    """Set an attribute of a layer that is or holds other layers, also once it is built."""
    locked = layer._tracker.locked
    layer._tracker.unlock()
    try:
        setattr(layer, name, value)
    finally:
        if locked:
            layer._tracker.lock()
    refresh_names(layer)


def kernel_variable(layer: keras.Layer) -> keras.Variable:
    """Return the kernel of a Dense or convolutional layer as a variable.

    The public `kernel` is a tensor where the layer is quantized or uses LoRA.
    """
    return layer._kernel


def is_allocated(variable: keras.Variable) -> bool:
    """Say whether a variable has numbers yet; none has while Keras traces its creation."""
    return variable._value is not None


def initializer_of(variable: keras.Variable) -> Callable[..., Any]:
    """Return the initializer of a variable that is not allocated yet."""
    return variable._initializer


def set_initializer(variable: keras.Variable, initializer: Callable[..., Any]) -> None:
    """Set the initializer of a variable that is not allocated yet."""
    variable._initializer = initializer


def allocate(variable: keras.Variable) -> None:
    """Give a variable its memory, with the numbers of its initializer."""
    variable._deferred_initialize()


def finish_building(layer: keras.Layer) -> None:
    """Let a layer do what Keras leaves out where it builds one without numbers.

    PyTorch's layers list their parameters then.
    """
    layer._post_build()


def set_path(variable: keras.Variable, path: str) -> None:
    """Set the path under which a variable is known in its model."""
    variable._path = path


@contextlib.contextmanager
def variables_without_numbers(
    on_creation: Callable[[keras.Variable], None],
) -> Iterator[list[keras.Variable]]:
    """Let no variable that is created in the block take memory for its numbers.

    A variable then has a shape, a dtype and an initializer. Give each one that is to be
    used numbers with `allocate`, after the block. Initializers are called only by layers
    that compute with a weight while they are built.

    Args:
        on_creation: Is called with each new variable, and may raise an error.

    Yields:
        The variables, in the order of their creation; complete when the block ends.
    """

    class Ledger(list[keras.Variable]):
        def append(self, variable: keras.Variable) -> None:
            on_creation(variable)
            super().append(variable)

    variables = Ledger()
    scope = keras.StatelessScope(initialize_variables=False)
    create = _AnyVariable.__init__

    def create_late(
        self: Any, initializer: Any, shape: Any = None, dtype: Any = None, **options: Any
    ) -> None:
        """Create a variable from an array as if a function returned the array."""
        is_array = not isinstance(initializer, str) and not callable(initializer)
        if is_array and global_state.get_global_attribute("stateless_scope") is scope:
            array = self._convert_to_tensor(initializer, dtype=dtype)
            dtype = dtype or keras.backend.standardize_dtype(array.dtype)
            create(self, lambda *_, **__: array, array.shape, dtype, **options)
        else:
            create(self, initializer, shape, dtype, **options)

    # The class belongs to all threads; what is replaced acts within this scope alone.
    with _one_at_a_time:
        others = global_state.get_global_attribute(_LATE_VARIABLES)
        global_state.set_global_attribute(_LATE_VARIABLES, variables)
        _AnyVariable.__init__ = create_late
        try:
            with scope:
                yield variables
        finally:
            _AnyVariable.__init__ = create
            global_state.set_global_attribute(_LATE_VARIABLES, others)


def safe_deserialization() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which Keras runs no code of a config, whatever its global switch says."""
    return SafeModeScope(True)


def scope_outside(scope: keras.StatelessScope) -> keras.StatelessScope | None:
    """Return the scope that was active when a stateless scope was entered."""
    return scope.original_scope


@contextlib.contextmanager
def outside_of(scope: keras.StatelessScope) -> Iterator[None]:
    """Leave a stateless scope for the scope around it, or for none, and enter it again."""
    global_state.set_global_attribute("stateless_scope", scope.original_scope)
    try:
        yield
    finally:
        global_state.set_global_attribute("stateless_scope", scope)


def stored_value(variable: keras.Variable) -> Any:
    """Return what a variable holds, whatever scope is active; None before it is allocated."""
    return variable._value


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """Return the arguments of `model.compile`, not serialized."""
    return dict(model._compile_config.config)


def compute_loss(model: keras.Model, x: Any, y: Any, predictions: Any, sample_weight: Any) -> Any:
    """Compute a compiled model's loss in inference, with the losses that layers add."""
    return model._compute_loss(x, y, predictions, sample_weight, training=False)


def decays(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> bool:
    """Return whether an optimizer with weight decay lets a variable decay."""
    return bool(optimizer._use_weight_decay(variable))


def compiled_metrics(model: keras.Model) -> Any:
    """Return the metrics of a compiled model as one metric; None if it has none."""
    return model._compile_metrics


def metric_direction(metric: keras.metrics.Metric) -> str | None:
    """Return "up" if more of a metric is better, "down" if less is; None if it does not say."""
    return getattr(metric, "_direction", None)


@contextlib.contextmanager
def names_from_the_start() -> Iterator[None]:
    """Let layers within a scope be named as in a new process: Keras counts the names that it gives.

    So the same function makes a model of the same names, however many there are already.
    """
    counts = global_state.get_global_attribute(_NAME_COUNTS)
    global_state.set_global_attribute(_NAME_COUNTS, None)
    try:
        yield
    finally:
        global_state.set_global_attribute(_NAME_COUNTS, counts)


def clear_losses(model: keras.Model) -> None:
    """Make layers drop the losses of their last call, which may be traced tensors."""
    model._clear_losses()


def builder_that_reads() -> keras.Layer | None:
    """Return the layer whose `build` reads an attribute of another one; None if none does.

    It looks past the frames of this library: who reads is the first one behind them.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("quantal."):
        frame = frame.f_back
    if frame is None or frame.f_code.co_name != "build":
        return None
    layer = frame.f_locals.get(frame.f_code.co_varnames[0])
    return layer if isinstance(layer, keras.Layer) else None


class Fit(NamedTuple):
    """A fit that is running, as far as Keras does not show it to its callbacks.

    Attributes:
        data: The adapter of the training data; `batches_of_fit` reads it, and `num_batches` is None
            where these have no end, or one that is not known.
        callbacks: The list of all callbacks, in the order in which they are called.
        validation: The arguments of `evaluate` for the validation data; None if there are none.
        is_silent: Whether it prints nothing.
    """

    data: Any
    callbacks: keras.callbacks.CallbackList
    validation: dict[str, Any] | None
    is_silent: bool = False


def fit_around() -> Fit | None:
    """Return the fit whose callback asks; None outside of any.

    Keras gives callbacks neither data nor each other, and keeps them in no attribute: they
    are variables of `fit`.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        names = frame.f_locals
        iterator, callbacks = names.get("epoch_iterator"), names.get("callbacks")
        if isinstance(iterator, EpochIterator) and isinstance(
            callbacks, keras.callbacks.CallbackList
        ):
            validation = None
            if names.get("validation_data") is not None:
                validation = {
                    "x": names["val_x"],
                    "y": names["val_y"],
                    "sample_weight": names["val_sample_weight"],
                    "batch_size": names["validation_batch_size"] or names["batch_size"],
                    "steps": names["validation_steps"],
                }
            is_silent = str(names.get("verbose", 0)) == "0"
            return Fit(iterator.data_adapter, callbacks, validation, is_silent)
        frame = frame.f_back
    return None


def batches_of_fit(data: Any) -> Generator[Any, None, None]:
    """Yield batches of the training data of a fit, in its own order: tuples of NumPy arrays.

    Args:
        data: The attribute of a `Fit`.
    """
    data.on_epoch_begin()
    try:
        yield from data.get_numpy_iterator()
    finally:
        data.on_epoch_end()


def trained_values(model: keras.Model) -> list[tuple[keras.Variable, Any]]:
    """Return the variables that training moves with their present values, also amid an epoch.

    JAX's trainer keeps the values of an epoch to itself, and takes those of the variables away.
    They are valid until the next step: compute with them, and do not keep them.
    """
    return _present_values(model, "trainable_variables")


def present_state(model: keras.Model) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which variables have their present values, also amid an epoch.

    What is assigned to a variable within it is lost on JAX.
    """
    if not _state_of_trainer(model):
        return contextlib.nullcontext()
    kinds = ("trainable_variables", "non_trainable_variables")
    pairs = [pair for kind in kinds for pair in _present_values(model, kind)]
    return keras.StatelessScope(state_mapping=pairs)


def _state_of_trainer(model: keras.Model) -> dict[str, Any]:
    """Return what JAX's trainer has in place of variables; nothing where these have it back.

    A callback that asks for its model, or that evaluates another model of the same layers, gives
    the variables their values back, and the arrays of the trainer may be gone.
    """
    if getattr(model, "_jax_state_synced", True):
        return {}
    return getattr(model, "_jax_state", None) or {}


def _present_values(model: keras.Model, kind: str) -> list[tuple[keras.Variable, Any]]:
    """Return the variables in one of a model's lists with their present values."""
    variables = getattr(model, kind)
    state = _state_of_trainer(model)
    values = state.get(kind) or [variable._value for variable in variables]
    return list(zip(variables, values, strict=True))


class Call(NamedTuple):
    """The call of a layer that created a symbolic tensor.

    Attributes:
        layer: The layer.
        node: The node of Keras's graph: inputs, outputs and arguments of the call.
    """

    layer: keras.Layer
    node: Any


def call_of(tensor: Any) -> Call:
    """Return the call that created a symbolic tensor."""
    layer, index, _ = tensor._keras_history
    return Call(layer, layer._inbound_nodes[index])


def nodes_of(model: keras.Model) -> Iterator[Any]:
    """Yield the nodes of a model's graph; none for a subclassed model."""
    graph = getattr(model, "_functional", model)
    for level in getattr(graph, "_nodes_by_depth", {}).values():
        yield from level


def graph_outputs(model: keras.Model) -> list[Any]:
    """Return the symbolic outputs of a model's graph; none for a subclassed model."""
    return list(getattr(getattr(model, "_functional", model), "outputs", []))


def operation_name(operation: Any) -> str | None:
    """Return the name of an operation on arrays that is a node of a graph, such as "add".

    It is that of the class in lower case; None for a layer or an operation of another kind.
    """
    kind = type(operation)
    return kind.__name__.lower() if kind.__module__ == "keras.src.ops.numpy" else None


def activation_operation(operation: Any) -> str | None:
    """Return the name of an operation of a graph that is an activation function, such as "relu".

    It is that of the class in lower case; None for a layer or an operation of another kind.
    """
    name = type(operation).__name__.lower()
    is_activation = type(operation).__module__ == "keras.src.ops.nn" and (
        hasattr(keras.activations, name) or name in ("hardtanh", "hardsigmoid", "leakyrelu")
    )
    return name if is_activation or operation_name(operation) == "sign" else None


def operations_of(model: keras.Model) -> list[Any]:
    """Return the layers and operations of a model's graph; none for a subclassed model."""
    return list(getattr(graph_of(model), "operations", []))


def inputs_of_graph(model: keras.Model) -> list[Any]:
    """Return the symbolic inputs of a model's graph; none for a subclassed model."""
    return list(getattr(getattr(model, "_functional", model), "inputs", []))


def input_shapes(layer: keras.Layer) -> list[tuple[int | None, ...]]:
    """Return the shape of the first input of each symbolic call of a layer."""
    return [tuple(node.input_tensors[0].shape) for node in layer._inbound_nodes]


def takes_masks(layer: keras.Layer) -> bool:
    """Return whether an input of a symbolic call of a layer has a mask."""
    inputs = [tensor for node in layer._inbound_nodes for tensor in node.input_tensors]
    return any(getattr(tensor, "_keras_mask", None) is not None for tensor in inputs)


def mask_of(tensor: Any) -> Any:
    """Return the mask that goes with a tensor in a layer's call, or None."""
    return keras.src.backend.get_keras_mask(tensor)


def graph_of(model: keras.Layer) -> Any:
    """Return what holds the graph of a model: the model inside a Sequential, or the model."""
    return getattr(model, "_functional", None) or model


def replace_tracked(layer: keras.Layer, replacements: Mapping[object, keras.Layer]) -> None:
    """Make a layer track other layers in the places of some that it tracks."""
    tracker = layer._tracker
    for old in [inner for inner in tracker.config["layers"][1] if inner in replacements]:
        tracker.replace_tracked_value("layers", old, replacements[old])


def rename_nodes(graph: Any, replacements: Mapping[object, keras.Layer]) -> None:
    """Let a graph know its nodes by other layers; it names them by their layers' identity."""
    names = getattr(graph, "_nodes", None)
    if not names:
        return
    new_of = {str(id(old)): str(id(new)) for old, new in replacements.items()}
    parts = [name.partition("_ib-") for name in names]
    graph._nodes = {new_of.get(start, start) + middle + end for start, middle, end in parts}


def hand_over_nodes(old: keras.Layer, new: keras.Layer) -> None:
    """Make the symbolic calls of a layer calls of another one, which had none."""
    for index, node in enumerate(old._inbound_nodes):
        node.operation = new
        for position, tensor in enumerate(node.outputs):
            tensor._keras_history = type(tensor._keras_history)(new, index, position)
    new._inbound_nodes = list(old._inbound_nodes)
    new._outbound_nodes = list(old._outbound_nodes)
    old._inbound_nodes, old._outbound_nodes = [], []


_PRODUCTS = {
    "matmul": keras.src.backend.numpy,
    "dot": keras.src.backend.numpy,
    "tensordot": keras.src.backend.numpy,
    "einsum": keras.src.backend.numpy,
    "conv": keras.src.backend.nn,
    "depthwise_conv": keras.src.backend.nn,
    "conv_transpose": keras.src.backend.nn,
    "separable_conv": keras.src.backend.nn,
}
"""The backend's functions that multiply inputs and weights, with the modules that layers ask."""

ReplaceProduct = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""A function of a product's name, its function, its arguments and its arguments by name."""


@contextlib.contextmanager
def products_replaced(replace: ReplaceProduct) -> Iterator[None]:
    """Let a function compute every product of the backend that this thread asks for in the block.

    It is called in place of `keras.ops.matmul` and its like, whoever asks for them, with the
    variables themselves where a layer gives variables. Products within it are the backend's own.
    """
    thread, is_within = threading.get_ident(), False

    def replaced(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def product(*arguments: Any, **options: Any) -> Any:
            nonlocal is_within
            if is_within or threading.get_ident() != thread:
                return function(*arguments, **options)
            is_within = True
            try:
                return replace(name, function, arguments, options)
            finally:
                is_within = False

        return product

    with _one_at_a_time:
        functions = {name: getattr(module, name) for name, module in _PRODUCTS.items()}
        try:
            for name, module in _PRODUCTS.items():
                setattr(module, name, replaced(name, functions[name]))
            yield
        finally:
            for name, module in _PRODUCTS.items():
                setattr(module, name, functions[name])


ReplaceCall = Callable[[Any, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""A function of a layer or operation, what calls it, its arguments and its arguments by name."""


@contextlib.contextmanager
def calls_replaced(replace: ReplaceCall) -> Iterator[None]:
    """Let a function stand for every call of a layer that this thread makes in the block.

    It is called in place of the layer, at every depth, and may call it by what it is given. So it
    is for the operations on arrays that are nodes of a graph, and for `keras.ops.pad`.
    """
    thread = threading.get_ident()
    call_layer, call_operation = keras.Layer.__call__, keras.Operation.__call__

    def call(layer: keras.Layer, *arguments: Any, **options: Any) -> Any:
        if threading.get_ident() != thread:
            return call_layer(layer, *arguments, **options)
        return replace(layer, functools.partial(call_layer, layer), arguments, options)

    def call_other(operation: Any, *arguments: Any, **options: Any) -> Any:
        # A layer comes here on its way from its own call.
        if threading.get_ident() != thread or isinstance(operation, keras.Layer):
            return call_operation(operation, *arguments, **options)
        return replace(operation, functools.partial(call_operation, operation), arguments, options)

    with _one_at_a_time:
        keras.Layer.__call__, keras.Operation.__call__ = call, call_other
        try:
            yield
        finally:
            keras.Layer.__call__, keras.Operation.__call__ = call_layer, call_operation


def symbolic_outputs(function: Callable[..., Any], *inputs: Any) -> Any:
    """Return what a function returns for symbolic tensors, which have shapes and no numbers.

    The backend traces the function, so that nothing is computed. PyTorch calls it again if that
    fails, and then computes.
    """
    return keras.src.backend.compute_output_spec(function, *inputs)
