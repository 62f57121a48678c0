"""Keras still has each private name that quantal uses; nothing else uses one."""

import pathlib
import re

import keras
import numpy as np
import pytest

import quantal
from quantal._core.keras_internals import (
    allocation,
    calls,
    compiled,
    graph,
    interception,
    layers,
    running_fit,
    scopes,
    variables,
)

SOURCE = pathlib.Path(quantal.__file__).parent
PRIVATE = re.compile(
    r"(?<!self)(?<!cls)\.(_flatten_layers|_trainable_variables|_non_trainable_variables|_tracker"
    r"|_kernel|_value|_initializer|_compile_config|_compute_loss|_clear_losses|_keras_history"
    r"|_inbound_nodes|_track_variable|_deferred_initialize|_post_build|_path|_functional"
    r"|_nodes_by_depth|_inputs_struct|original_scope)\b"
)


def model_of(*layers):
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile(loss="mse")
    return model


def test_private_names_stand_in_one_folder():
    uses = {
        path.name: PRIVATE.findall(path.read_text())
        for path in SOURCE.rglob("*.py")
        if path.parent.name != "keras_internals"
    }
    assert {name: used for name, used in uses.items() if used} == {}


def test_that_check_can_fail():
    assert PRIVATE.findall("layer._flatten_layers()") == ["_flatten_layers"]
    assert PRIVATE.findall((SOURCE / "_core/keras_internals/layers.py").read_text())


def test_layers_and_variables():
    dense = keras.layers.Dense(2)
    model = model_of(dense)
    assert layers.flatten_layers(model)[0] is model
    assert dense in layers.flatten_layers(model)
    assert layers.own_variables(dense) == [dense.kernel, dense.bias]
    assert layers.own_variables(model) == []
    assert layers.kernel_variable(dense) is dense.kernel


def test_the_outermost_layer_and_a_stateless_scope_are_known_in_a_call():
    seen = []

    class Asking(keras.layers.Layer):
        def call(self, x):
            seen.append((calls.called_layer(), scopes.is_stateless()))
            return x

    model = model_of(Asking())
    seen.clear()
    model(np.ones((1, 3)))
    with keras.StatelessScope():
        model(np.ones((1, 3)))
    assert seen == [(model, False), (model, True)]
    assert calls.called_layer() is None


def test_a_variable_that_is_tracked_is_a_weight():
    layer, variable = keras.layers.Layer(), keras.Variable(1.0)
    layers.track_variable(layer, variable)
    assert layer.trainable_variables == [variable]


def test_a_layer_that_is_untracked_is_forgotten():
    outer, inner = keras.layers.Layer(), keras.layers.Dense(2)
    outer.inner = inner
    assert layers.flatten_layers(outer) == [outer, inner]
    layers.untrack(outer, inner)
    assert layers.flatten_layers(outer) == [outer]


def test_layers_of_a_built_layer_are_exchanged():
    outer = keras.layers.TimeDistributed(keras.layers.Dense(2))
    outer.build((None, 3, 4))
    old, new = outer.layer, keras.layers.Dense(2)
    new.build((None, 4))
    layers.untrack(outer, old)
    layers.set_layers(outer, "layer", new)
    assert layers.flatten_layers(outer) == [outer, new]
    assert outer.weights == new.weights
    with pytest.raises(ValueError, match="already built"):
        outer.more = old


def test_variables_without_numbers():
    class Late(keras.layers.Layer):
        def build(self, shape):
            self.weight = self.add_weight(shape=(2,), initializer="zeros")
            self.seen = allocation.is_allocated(self.weight)
            if not self.seen:
                initializer = allocation.initializer_of(self.weight)
                allocation.set_initializer(
                    self.weight, lambda shape, dtype: 1 + initializer(shape, dtype)
                )

        def call(self, x):
            return x

    layer = Late()
    with keras.StatelessScope():
        layer(np.zeros((1, 2), "float32"))
    assert not layer.seen
    assert keras.ops.convert_to_numpy(layer.weight).tolist() == [1, 1]
    assert allocation.is_allocated(layer.weight)


def test_scopes_within_scopes():
    with keras.StatelessScope() as outer, keras.StatelessScope() as inner:
        assert scopes.scope_outside(inner) is outer


def test_losses():
    model = model_of(keras.layers.Dense(1, activity_regularizer="l2"))
    x = np.ones((2, 3), "float32")
    predictions = model(x)
    loss = compiled.compute_loss(model, x, predictions + 1, predictions, None)
    assert keras.ops.convert_to_numpy(loss) > 1
    assert model.losses
    compiled.clear_losses(model)
    assert not model.losses
    assert compiled.compile_arguments(model)["loss"] == "mse"


def test_compiled_metrics():
    model = model_of(keras.layers.Dense(1))
    assert compiled.compiled_metrics(model) is None
    model.compile(loss="mse", metrics=["mae", keras.metrics.BinaryAccuracy(name="right")])
    metrics = compiled.compiled_metrics(model)
    assert not metrics.built
    metrics.build(np.ones((2, 1)), np.ones((2, 1)))
    assert metrics.built
    directions = {metric.name: compiled.metric_direction(metric) for metric in metrics.metrics}
    assert directions == {"mae": "down", "right": "up"}
    state = metrics.stateless_update_state(
        metrics.stateless_reset_state(), np.ones((2, 1)), np.zeros((2, 1))
    )
    results = metrics.stateless_result(state)
    assert {name: float(result) for name, result in results.items()} == {"mae": 1, "right": 0}


def test_graphs():
    model = model_of(keras.layers.Dense(2), keras.layers.Dense(1))
    (output,) = graph.graph_outputs(model)
    assert graph.inputs_of_graph(model)[0] is model.inputs[0]
    layer, node = graph.call_of(output)
    assert layer is model.layers[-1]
    assert node.operation is layer
    assert {node.operation for node in graph.nodes_of(model)} > set(model.layers)


def test_another_layer_stands_in_a_graph():
    dense, other = keras.layers.Dense(2), keras.layers.Dense(2)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, dense(inputs))
    other.build((None, 3))
    exchanged = {dense: other}
    layers.replace_tracked(model, exchanged)
    graph.rename_nodes(graph.graph_of(model), exchanged)
    graph.hand_over_nodes(dense, other)
    assert layers.flatten_layers(model)[-1] is other
    assert graph.call_of(model.outputs[0]).layer is other
    assert graph.graph_of(model) is model
    x = np.ones((1, 3), "float32")
    np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (model(x), other(x))))
    stack = model_of(keras.layers.Dense(1))
    assert graph.graph_of(stack) is not stack


def test_a_variable_gets_another_name():
    dense = keras.layers.Dense(2, name="head")
    dense.build((None, 3))
    variables.rename(dense.kernel, "kernel_latent")
    assert (dense.kernel.name, dense.kernel.path) == ("kernel_latent", "head/kernel_latent")
    layers.refresh_names(dense)
    if keras.config.backend() == "torch":
        assert any(name.endswith("head/kernel_latent") for name in dense.state_dict())


def test_the_call_in_progress_says_whether_it_trains():
    seen = []

    class Asking(keras.layers.Layer):
        def call(self, x):
            seen.append(calls.training_of_call())
            return x

    for training in (True, False, None):
        Asking()(np.ones((1, 2)), training=training)
    assert seen == [True, False, False]
    assert not calls.training_of_call()


def test_a_scope_is_left_and_entered_again():
    variable = keras.Variable([1.0])
    with keras.StatelessScope([(variable, [2.0])]) as scope:
        with scopes.outside_of(scope):
            variable.assign([3.0])
        assert keras.ops.convert_to_numpy(variable.value).tolist() == [2]
        assert keras.ops.convert_to_numpy(variables.stored_value(variable)).tolist() == [3]


def test_variables_are_created_without_numbers():
    created = []
    with allocation.variables_without_numbers(created.append) as late:
        layer = keras.layers.Dense(2**20)
        layer.build((None, 2**20))
        array = keras.Variable(np.array([3.0, 4.0], "float32"))
    assert late == created == [layer.kernel, layer.bias, array]
    assert not any(map(allocation.is_allocated, late))
    assert tuple(layer.kernel.shape) == (2**20, 2**20)
    allocation.allocate(array)
    allocation.allocate(layer.bias)
    assert keras.ops.convert_to_numpy(array).tolist() == [3, 4]
    layers.finish_building(keras.layers.Dense(1))
    # Outside, and after an error inside, variables have numbers again.
    with pytest.raises(ZeroDivisionError), allocation.variables_without_numbers(lambda _: 1 / 0):
        keras.layers.Dense(2).build((None, 2))
    assert allocation.is_allocated(keras.Variable(np.ones(2, "float32")))
    with keras.StatelessScope():
        pass
    variables.set_path(array, "other/array")
    assert array.path == "other/array"


def test_the_safe_scope_is_stronger_than_the_switch():
    layer = keras.layers.Lambda(lambda x: x)
    # Keras changes the config that it reads.
    config, again = (keras.saving.serialize_keras_object(layer) for _ in range(2))
    keras.config.enable_unsafe_deserialization()
    try:
        keras.saving.deserialize_keras_object(config)
        with scopes.safe_deserialization(), pytest.raises(ValueError, match="Lambda"):
            keras.saving.deserialize_keras_object(again)
    finally:
        keras.src.backend.common.global_state.set_global_attribute("safe_mode_saving", None)


def test_a_state_that_tensorflow_tracks_is_no_weight():
    layer, variable = keras.layers.Dense(2), keras.Variable(1.0, trainable=False, name="seed")
    layer.build((None, 3))
    layers.track_state(layer, "_seed", variable)
    assert [weight.name for weight in layer.weights] == ["kernel", "bias"]
    if keras.config.backend() == "tensorflow":
        assert "_seed" in layer._trackable_children()


def test_a_callback_sees_the_fit_around_it():
    seen = []

    class See(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.append(running_fit.fit_around())

        def on_train_batch_end(self, batch, logs=None):
            pairs = running_fit.trained_values(self.model)
            tensors = [keras.ops.stop_gradient(value) for _, value in pairs]
            seen.append([variable for variable, _ in pairs])
            seen.append([np.array(keras.ops.convert_to_numpy(tensor)) for tensor in tensors])
            with running_fit.present_state(self.model):
                tensors = [keras.ops.convert_to_tensor(v) for v in self.model.trainable_variables]
            tensors = [keras.ops.stop_gradient(tensor) for tensor in tensors]
            seen.append([np.array(keras.ops.convert_to_numpy(tensor)) for tensor in tensors])

    model, x = model_of(keras.layers.Dense(2)), np.ones((4, 3), "f4")
    see = See()
    model.fit(x, x[:, :2], batch_size=2, validation_split=0.5, verbose=0, callbacks=[see])
    fit, variables, values, in_state = seen
    assert see in fit.callbacks.callbacks
    assert fit.validation["x"].shape == (2, 3)
    assert (fit.is_silent, fit.data.num_batches) == (True, 1)
    assert [batch[0].shape for batch in running_fit.batches_of_fit(fit.data)] == [(2, 3)]
    assert variables == model.trainable_variables
    for variable, *present in zip(variables, values, in_state, strict=True):
        for value in present:
            np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)
    assert running_fit.fit_around() is None
    model.fit(x, x[:, :2], verbose=2, callbacks=[see])
    assert not seen[4].is_silent
    assert model.evaluate(**fit.validation, verbose=0) >= 0


def test_a_callback_sees_present_values_after_another_model_has_used_the_layers():
    model, x = model_of(keras.layers.BatchNormalization()), np.ones((4, 3), "f4")
    another = keras.Sequential([keras.Input((3,)), *model.layers])
    sums = []

    class Predict(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            _ = self.model
            another.predict(x, verbose=0)

        def on_train_end(self, logs=None):
            values = [value for _, value in running_fit.trained_values(self.model)]
            with running_fit.present_state(self.model):
                values += [keras.ops.convert_to_tensor(v) for v in self.model.variables]
            values = [keras.ops.stop_gradient(value) for value in values]
            sums.extend(keras.ops.convert_to_numpy(value).sum() for value in values)

    model.fit(x, x, epochs=2, batch_size=2, verbose=0, callbacks=[Predict()])
    assert np.isfinite(sums).all()
    assert len(sums) == 6


def test_products_are_replaced_for_layers_and_users_alike():
    dense, seen = keras.layers.Dense(2, use_bias=False), []

    def replace(name, function, arguments, options):
        seen.append((name, any(argument is dense.kernel for argument in arguments)))
        return 2 * function(*arguments, **options)

    x = np.ones((1, 3), "float32")
    expected = 2 * keras.ops.convert_to_numpy(dense(x))
    with interception.products_replaced(replace):
        inside = dense(x)
        keras.ops.einsum("ij->ij", keras.ops.ones((1, 1)))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(inside), expected)
    assert seen == [("matmul", True), ("einsum", False)]
    dense(x)
    assert len(seen) == 2


def test_names_from_the_start():
    keras.layers.Dense(1)
    with scopes.names_from_the_start():
        names = [keras.layers.Dense(1).name for _ in range(2)]
    assert names == ["dense", "dense_1"]
    with scopes.names_from_the_start():
        assert keras.layers.Dense(1).name == "dense"
    assert keras.layers.Dense(1).name != "dense"


def test_every_call_of_a_layer_is_replaced_in_the_block():
    dense, seen = keras.layers.Dense(2), []
    model = model_of(keras.Sequential([dense]))

    def replace(layer, call, arguments, options):
        seen.append(layer)
        return call(*arguments, **options)

    def shapes(inputs):
        return model(inputs)

    with interception.calls_replaced(replace):
        outputs = interception.symbolic_outputs(shapes, keras.KerasTensor((5, 3)))
    assert outputs.shape == (5, 2)
    assert seen[0] is model
    assert [layer for layer in seen if layer is dense] == [dense]
    count = len(seen)
    model(np.ones((1, 3)))
    assert len(seen) == count


def test_operations_of_a_graph_are_replaced_too():
    inputs, seen = keras.Input((3,)), []
    model = keras.Model(inputs, keras.ops.pad(inputs, [[0, 0], [1, 1]], constant_values=1))

    def replace(operation, call, arguments, options):
        seen.append(operation)
        return call(*arguments, **options)

    with interception.calls_replaced(replace):
        model(np.ones((1, 3)))
    assert [graph.operation_name(operation) for operation in seen] == [None, "pad"]
    model(np.ones((1, 3)))
    assert len(seen) == 2


def test_who_reads_in_its_build():
    readers = []

    class Reader(keras.layers.Layer):
        def build(self, input_shape):
            readers.append(calls.builder_that_reads())

        def call(self, inputs):
            readers.append(calls.builder_that_reads())
            return inputs

    reader = Reader()
    reader(np.ones((1, 2)))
    assert readers[0] is reader
    assert set(readers[1:]) == {None}
    assert calls.builder_that_reads() is None


def test_an_optimizer_says_what_decays():
    model = model_of(keras.layers.Dense(2))
    kernel, bias = model.layers[0].weights
    optimizer = keras.optimizers.AdamW(weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_list=[bias])
    assert [compiled.decays(optimizer, variable) for variable in (kernel, bias)] == [True, False]


def test_without_a_distribution_a_variable_stays_where_it_is():
    variable = keras.Variable([1.0, 2.0])
    variables.lay_out(variable, ["kernel"])
    assert variables.layout_of(variable) is None
    assert keras.ops.convert_to_numpy(variable).tolist() == [1.0, 2.0]


def test_operations_have_names():
    x = keras.Input((3,))
    for tensor, name in ((x + 1, "add"), (x / x, "truedivide"), (1 - x, "subtract")):
        assert graph.operation_name(graph.call_of(tensor).layer) == name
    dense = keras.layers.Dense(2)
    assert graph.operation_name(dense) is None


def test_layers_of_applications_compute_what_is_read():
    x = np.arange(6, dtype="float32").reshape(2, 3)
    factors = layers.LAYER_SCALE(0.5, 3)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(factors(x)), x * 0.5)
    assert factors.gamma.shape == (3,)
    dropped = layers.STOCHASTIC_DEPTH(0.9)(x)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(dropped), x)
    total = layers.SCALED_SUM(0.25)([x, 2 * x])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(total), x * 1.5)


def test_mask_of_reads_the_mask_that_a_layer_is_given():
    masks = []

    class Listening(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.supports_masking = True

        def call(self, inputs):
            masks.append(calls.mask_of(inputs))
            return inputs

    keras.Sequential([keras.layers.Masking(), Listening()])(np.float32([[[0, 0], [1, 2]]]))
    assert keras.ops.convert_to_numpy(masks[-1]).tolist() == [[False, True]]
    assert calls.mask_of(keras.ops.ones(3)) is None
