"""Whole models: on lists and off again."""

import re
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import quantal
from conftest import numpy, on_one_backend
from models import (
    WHOLE_MODELS,
    Block,
    codes_of,
    images,
    rows,
    sequences,
    sequential,
    subclassed,
)
from quantal import (
    Discrete,
    LearnableMultiplier,
    Scale,
    Values,
    bake,
    discretize,
    parameters_of,
)
from quantal._core.keras_internals.graph import nodes_of
from quantal._core.scale import has_natural_unit
from quantal._models.weight_decay import exclude_from_weight_decay


def outputs_of(model, x):
    return [np.asarray(output) for output in keras.tree.flatten(model.predict(x, verbose=0))]


def assert_equal(result, expected):
    assert len(result) == len(expected)
    for one, other in zip(result, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.product
@pytest.mark.parametrize("make", WHOLE_MODELS)
class TestEveryKindOfModel:
    def test_every_kernel_goes_on_the_list_and_the_old_model_stays(self, make, random):
        model, x = make(random)
        before = [numpy(w).copy() for w in model.weights]
        expected = outputs_of(model, x)
        discrete = discretize(model, {"kernel$": "ternary"})
        assert_equal([numpy(w) for w in model.weights], before)
        assert_equal(outputs_of(model, x), expected)
        kernels = [w for w in model.weights if w.name.endswith("kernel")]
        parameters = parameters_of(discrete)
        assert len(parameters) == len(kernels) >= 3
        for parameter in parameters:
            assert set(np.unique(numpy(parameter.listed_values))) <= {-1, 0, 1}

    def test_baked_it_predicts_the_same_and_nothing_of_quantal_is_left(self, make, random):
        model, x = make(random)
        discrete = discretize(model, [1, -1, 0.5, -0.5])
        plain = bake(discrete)
        assert_equal(outputs_of(plain, x), outputs_of(discrete, x))
        assert not [
            layer for layer in plain._flatten_layers() if type(layer).__module__[:7] == "quantal"
        ]

    def test_discretized_again_it_has_the_same_codes(self, make, random):
        model, x = make(random)
        discrete = discretize(model, "ternary")
        again = discretize(bake(discrete), "ternary")
        assert_equal(codes_of(again), codes_of(discrete))
        assert_equal(outputs_of(again, x), outputs_of(discrete, x))

    def test_it_trains_on(self, make, random):
        model, x = make(random)
        discrete = discretize(model, "binary")
        discrete.compile(keras.optimizers.SGD(1.0), "mse")
        target = keras.tree.map_structure(lambda y: y + 1, discrete.predict(x, verbose=0))
        before = [numpy(p.latent).copy() for p in parameters_of(discrete)]
        discrete.fit(x, target, verbose=0)
        moved = [
            not np.array_equal(numpy(p.latent), latent)
            for p, latent in zip(parameters_of(discrete), before, strict=True)
        ]
        assert all(moved)


@pytest.mark.product
@pytest.mark.parametrize("make", [sequential, sequences, images])
def test_it_saves_and_loads(make, random, tmp_path):
    model, x = make(random)
    discrete = discretize(model, lambda weights: Values.k_means(weights, 4, learnable=True))
    discrete.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_equal(outputs_of(loaded, x), outputs_of(discrete, x))


def test_no_latent_is_drawn_that_a_trained_weight_replaces(random, monkeypatch):
    def later_draws():
        keras.utils.set_random_seed(3)
        discretize(model, "ternary")
        return numpy(keras.initializers.RandomUniform()((4,)))

    model, _ = sequential(random)
    expected = later_draws()

    def never(*args):
        raise AssertionError("drawn")

    monkeypatch.setattr("quantal.layers._first_latents.draw_latents", never)
    np.testing.assert_array_equal(later_draws(), expected)
    with pytest.raises(AssertionError, match="drawn"):
        Discrete(layers.Dense(2), "ternary").build((None, 3))


def test_a_subclassed_model_loads_its_weights_when_it_is_discretized_again(random, tmp_path):
    model, x = subclassed(random)
    discrete = discretize(model, "ternary")
    discrete.save_weights(tmp_path / "model.weights.h5")
    other, _ = subclassed(random)
    loaded = discretize(other, "ternary")
    loaded.load_weights(tmp_path / "model.weights.h5")
    assert_equal(outputs_of(loaded, x), outputs_of(discrete, x))


# What goes where.


def chosen(model, rules, **arguments):
    report = quantal.summary(discretize(model, rules, **arguments))
    return {row.path.split("/", 1)[-1]: row.values for row in report.rows if row.values}


def test_the_first_rule_that_is_found_decides(random):
    model, _ = sequential(random)
    rules = {"one": [1, -1], "two": None, "kernel": "ternary", "three/bias": "nf4"}
    assert chosen(model, rules) == {
        "one/kernel": Values([1, -1]),
        "three/kernel": Values("ternary"),
        "three/bias": Values("nf4"),
    }


def test_other_weights_are_taken_only_where_their_name_is_spelled(random):
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Flatten()(layers.Embedding(11, 4)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(layers.LayerNormalization()(x)))
    assert list(chosen(model, {"": "binary"})) == ["kernel"]
    assert list(chosen(model, {"embeddings": "nf4", "gamma": [1, 2]})) == ["embeddings", "gamma"]


def test_the_ends_can_stay_free(random):
    model, _ = sequential(random)
    assert list(chosen(model, "binary", keep_ends=True)) == ["two/kernel"]


def test_a_full_specification(random):
    model, _ = sequential(random)
    scale = Scale("least_squares", -1, power_of_two=True)
    rule = {"values": "ternary", "estimator": "annealed", "scale": scale}
    parameters = parameters_of(discretize(model, {"one": rule, "two": {"values": "nf4"}}))
    assert [type(p.estimator).__name__ for p in parameters] == ["Annealed", "StraightThrough"]
    assert parameters[0].scale_state.scale == scale
    assert np.all(np.frexp(numpy(parameters[0].scale))[0] == 0.5)
    assert parameters[1].scale_state.scale == Scale("learned", "output")
    single = parameters_of(discretize(model, {"values": "binary", "scale": None}))
    assert [p.scale for p in single] == [None, None, None]


def test_weights_of_one_layer_on_different_lists(random, tmp_path):
    model = keras.Sequential([keras.Input((6,)), Block(4)])
    kernels = [w for w in model.weights if w.name == "kernel"]
    rules = {
        kernels[0].path: "binary",
        kernels[1].path: lambda weights: Values.k_means(weights, 3, learnable=True),
        "gain": [0.5, 1],
    }
    discrete = discretize(model, rules)
    result = {p.path.split("/")[-1] + str(p.shape): p.values for p in parameters_of(discrete)}
    assert result["kernel(6, 4)"] == Values("binary")
    assert result["gain(4,)"] == Values([0.5, 1])
    assert result["kernel(4, 4)"].learnable
    discrete.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = rows(random, 6)
    assert_equal(outputs_of(loaded, x), outputs_of(discrete, x))


def test_lists_per_channel(random):
    model, _ = images(random)
    rules = {"/conv2d[_0-9]*/kernel": lambda w: Values.k_means(w, 4, axis=-1, learnable=True)}
    parameter = parameters_of(discretize(model, rules))[0]
    assert parameter.values.channels == 4
    for channel, listed in enumerate(parameter.values.numbers):
        assert np.isin(numpy(parameter.listed_values)[..., channel], listed).all()


def test_lists_of_proportions_get_a_scale_others_stay_raw(random):
    assert has_natural_unit(Values([1, -1, 0.5, -0.5]))
    assert has_natural_unit(Values("signed:4"))
    assert has_natural_unit(Values("additive_powers_of_two:4"))
    assert not has_natural_unit(Values([0.11, -0.23]))
    model, _ = sequential(random)
    scales = [p.scale for p in parameters_of(discretize(model, [0.11, -0.23]))]
    assert scales == [None, None, None]


def test_trained_weights_start_at_their_nearest_values_in_their_order(random):
    model, _ = sequential(random)
    raw = discretize(model, [-0.3, 0.1, 0.4])
    values = Values([-0.3, 0.1, 0.4])
    for layer in ("one", "two", "three"):
        weights = numpy(model.get_layer(layer).kernel)
        parameter = raw.get_layer(layer).discrete_parameters[0]
        np.testing.assert_array_equal(numpy(parameter.listed_values), values.nearest(weights))
        order = np.argsort(weights, axis=None)
        assert np.all(np.diff(numpy(parameter.latent).ravel()[order]) >= 0)


def test_the_report_says_what_rounding_loses_and_what_is_saved(random):
    model, _ = sequential(random)
    rules = {"one": "ternary", "two": None}
    discrete = discretize(model, rules)
    report = quantal.summary(discrete, compared_with=model, rules=rules)
    result = {row.path.split("/", 1)[-1]: row for row in report.rows}
    one = result["one/kernel"]
    weights = numpy(model.get_layer("one").kernel)
    parameter = parameters_of(discrete)[0]
    listed = numpy(parameter.listed_values) * numpy(parameter.scale)
    np.testing.assert_allclose(
        one.error, np.linalg.norm(weights - listed) / np.linalg.norm(weights), rtol=1e-5
    )
    assert 0 < one.error < 0.7
    assert (one.bits_before, one.bits_after) == (32 * 48, 2 * 48 + 32 * 8)
    assert result["two/kernel"].why == "rule 'two' leaves it free"
    assert result["two/bias"].why == "stays free unless its name is spelled"
    assert result["three/kernel"].why == "no rule names it"
    assert "one/kernel" in str(report)
    assert "times smaller" in str(report)
    assert len({line.index("error") for line in str(report).splitlines()[:1]}) == 1
    assert report.bits_after < report.bits_before


def test_a_rule_by_layer_takes_an_untrained_model(random):
    model, x = sequential(random)
    paths = [layer.kernel.path for layer in model.layers if isinstance(layer, layers.Dense)]
    rules = {f"^{re.escape(path)}$": "binary" for path in paths[:-1]}
    discrete = discretize(model, rules, scale=None, estimator="annealed")
    assert [p.path.split("/")[-2] for p in parameters_of(discrete)] == ["one", "two"]
    for parameter, path in zip(parameters_of(discrete), paths, strict=False):
        (weight,) = (w for w in model.weights if w.path == path)
        np.testing.assert_array_equal(numpy(parameter.weight), np.where(numpy(weight) < 0, -1, 1))
    outputs_of(discrete, x)


def test_scales_and_learned_lists_of_a_discrete_model_are_no_weights_to_list(random):
    inputs = keras.Input((6,))
    x = Discrete(layers.Dense(4), Values([1, -1], learnable=True), scale="learned")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(x))
    assert "names no weight" in refused(model, {"scale": "binary"})


def test_what_is_discrete_already_stays(random):
    inputs = keras.Input((6,))
    x = Discrete(layers.Dense(4), "binary")(LearnableMultiplier([1, -1])(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    x = rows(random, 6)
    discrete = discretize(model, "nf4")
    report = quantal.summary(discrete, compared_with=model, rules="nf4")
    assert [p.values for p in parameters_of(discrete)] == [
        Values([1, -1]),
        Values("binary"),
        Values("nf4"),
    ]
    assert [row.why for row in report.rows].count("on its list already") == 2
    assert_equal(codes_of(discrete)[:2], codes_of(model))
    assert_equal(outputs_of(bake(discrete), x), outputs_of(discrete, x))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (LearnableMultiplier([1, -1], scale="learned"), (5, 4)),
        (LearnableMultiplier([1, -1, 0.3], axis=1, estimator="annealed"), (5, 4)),
        (LearnableMultiplier("nf4", axis=(1, 3), dtype="mixed_bfloat16"), (2, 3, 4)),
    ],
)
def test_a_multiplier_is_baked(layer, shape, random):
    model = keras.Sequential([keras.Input(shape), layer])
    x = rows(random, *shape)
    plain = bake(model)
    assert type(plain.layers[0]) is layers.EinsumDense
    assert_equal(outputs_of(plain, x), outputs_of(model, x))


@pytest.mark.parametrize(
    ("axis", "shape", "behind"),
    [
        (1, (5, 3), lambda: layers.Dense(2)),
        (1, (5, 3), lambda: layers.LSTM(2)),
        ((1, 2), (4, 4, 2), lambda: layers.Conv2D(2, 2)),
        (-1, (4, 4, 2), lambda: keras.Sequential([layers.Flatten(), layers.Dense(2)])),
        (-1, (None, 3), lambda: layers.LSTM(2)),
    ],
)
def test_a_multiplier_is_baked_before_anything(axis, shape, behind, random):
    model = keras.Sequential([keras.Input(shape), LearnableMultiplier(axis=axis), behind()])
    x = rows(random, *(size or 6 for size in shape))
    assert_equal([numpy(bake(model)(x))], [numpy(model(x))])


def test_masks_pass_a_baked_multiplier_in_files_too(random, tmp_path):
    embedding = layers.Embedding(7, 4, mask_zero=True)
    model = keras.Sequential(
        [keras.Input((None,), dtype="int32"), embedding, LearnableMultiplier(), layers.LSTM(2)]
    )
    x = np.array([[1, 2, 0, 0], [3, 0, 0, 0]])
    bake(model).save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert_equal([numpy(loaded(x))], [numpy(model(x))])


@on_one_backend
def test_a_multiplier_shared_by_inputs_of_two_lengths_is_baked(random):
    multiplier, inputs = LearnableMultiplier(), [keras.Input((n, 3)) for n in (4, 6)]
    outputs = [layers.LSTM(2)(multiplier(inputs[0])), layers.Dense(2)(multiplier(inputs[1]))]
    model = keras.Model(inputs, outputs)
    x = [rows(random, n, 3) for n in (4, 6)]
    assert_equal(outputs_of(bake(model), x), outputs_of(model, x))


@on_one_backend
def test_a_class_with_a_call_of_its_own_is_not_baked(random):
    class Doubled(LearnableMultiplier):
        def call(self, inputs, training=None):
            return 2 * super().call(inputs, training=training)

    class Same(Discrete):
        pass

    model = keras.Sequential([keras.Input((3,)), Same(layers.Dense(2), "binary")])
    x = rows(random, 3)
    assert_equal(outputs_of(bake(model), x), outputs_of(model, x))
    model.add(Doubled())
    with pytest.raises(ValueError, match=r"of type Doubled derives from LearnableMultiplier.*way"):
        bake(model)


@on_one_backend
def test_none_names_a_weight_that_stays_free_anyway(random):
    model = keras.Sequential(
        [keras.Input((3,)), layers.BatchNormalization(), layers.Dense(2, name="head")]
    )
    discrete = discretize(model, {"gamma": None, "": "binary"})
    assert len(parameters_of(discrete)) == 1
    with pytest.raises(ValueError, match="'hed' names no weight"):
        discretize(model, {"": "binary", "hed": None})
    with pytest.raises(ValueError, match="that a rule before it leaves"):
        discretize(model, {"": "binary", "head/kernel": None})


@on_one_backend
def test_arguments_of_calls_stay_in_graphs(random):
    base = keras.Sequential([keras.Input((3,)), layers.Dense(3), layers.BatchNormalization()])
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(2)(base(inputs, training=False)))
    discrete = discretize(model, "binary")
    for other in (discrete, bake(discrete), quantal.finalize(discrete)):
        (node,) = (n for n in nodes_of(other) if isinstance(n.operation, keras.Sequential))
        assert node.arguments.kwargs == {"training": False}


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(dtype, random):
    keras.config.set_dtype_policy(dtype)
    model, x = sequential(random)
    discrete = discretize(model, "nf4")
    assert_equal(outputs_of(bake(discrete), x), outputs_of(discrete, x))
    assert all(p.latent.dtype == "float32" for p in parameters_of(discrete))


# Compiled models.


def squared(y_true, y_pred):
    return ops.mean((y_true - y_pred) ** 2, axis=-1)


def test_a_compiled_model_comes_back_compiled_without_decay_on_latents(random):
    model, x = sequential(random)
    optimizer = keras.optimizers.AdamW(0.0, weight_decay=0.1)
    model.compile(optimizer, squared, metrics=["mae", keras.metrics.MeanSquaredError()])
    model.fit(x, rows(random, 3), verbose=0)
    discrete = discretize(model, "nf4")
    assert discrete.optimizer is not model.optimizer
    assert discrete.loss is squared
    # With a rate of 0 nothing moves but what decays: decay is the rate times 0.1.
    discrete.optimizer.learning_rate = 0.5
    latents = [numpy(p.latent).copy() for p in parameters_of(discrete)]
    frozen = [numpy(w).copy() for w in discrete.trainable_weights]
    discrete.optimizer.apply([ops.zeros(w.shape) for w in discrete.trainable_weights],
                             discrete.trainable_weights)  # fmt: skip
    assert_equal([numpy(p.latent) for p in parameters_of(discrete)], latents)
    decayed = [not np.array_equal(numpy(w), f) for w, f in
               zip(discrete.trainable_weights, frozen, strict=True)]  # fmt: skip
    assert any(decayed)
    assert set(discrete.fit(x, rows(random, 3), verbose=0).history) == set(model.history.history)


def test_a_compiled_model_is_baked_compiled(random):
    model = keras.Sequential([keras.Input((3,)), LearnableMultiplier([1, -1], seed=0)])
    assert not bake(model).compiled
    model.compile(keras.optimizers.SGD(0.25), "mse", metrics=["mae"])
    plain = bake(model)
    assert plain.compiled
    assert plain.optimizer is not model.optimizer
    assert float(numpy(plain.optimizer.learning_rate)) == 0.25
    x = random.normal(size=(8, 3)).astype("float32")
    assert set(plain.fit(x, x, verbose=0).history) == {"loss", "mae"}


def test_decay_pulls_latents_where_nobody_keeps_it_off():
    moved = []
    for keep in (False, True):
        model = keras.Sequential([keras.Input((3,)), LearnableMultiplier([1, -1], seed=0)])
        optimizer = keras.optimizers.SGD(0.1, weight_decay=0.5)
        if keep:
            exclude_from_weight_decay(optimizer, model)
        latent = parameters_of(model)[0].latent
        before = numpy(latent).copy()
        optimizer.apply([ops.zeros(latent.shape)], [latent])
        moved.append(not np.array_equal(before, numpy(latent)))
    assert moved == [True, False]


# Refusals.


class Closed(keras.Model):
    """Makes its layer where nobody can reach it."""

    def build(self, shape):
        self.hidden = layers.Dense(3)
        self.hidden.build(shape)

    def call(self, x):
        return self.hidden(x)


class NoConfig(layers.Layer):
    """Cannot be described."""

    def __init__(self, function):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        raise NotImplementedError("no config")


def refused(model, rules="binary", **arguments):
    with pytest.raises((ValueError, TypeError)) as caught:
        discretize(model, rules, **arguments)
    words = str(caught.value)
    # What came, what was expected, how to fix it.
    assert words.count(". ") >= 2, words
    return words


def test_models_that_cannot_be_converted_are_refused_by_name(random):
    assert "Expected a Keras model" in refused(layers.Dense(3))
    assert "is not built" in refused(keras.Sequential([layers.Dense(3)]))
    closed = Closed(name="closed")
    closed(rows(random, 4))
    assert "'closed' cannot be reached" in refused(closed)
    closed = keras.Sequential([keras.Input((4,)), NoConfig(print)])
    assert "type NoConfig cannot be created" in refused(closed)
    with pytest.raises(TypeError, match="Expected a Keras model"):
        bake(layers.Dense(3))


class Eager(keras.Model):
    """A model whose call needs numbers, so that Keras cannot trace it."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.first, self.norm = layers.Dense(4), layers.BatchNormalization()
        self.last = layers.Dense(3)

    def call(self, x):
        factor = float(ops.convert_to_numpy(x)[0, 0])
        return self.last(self.norm(self.first(x))) * factor


def test_a_model_that_keras_cannot_trace_is_built_layer_by_layer(random):
    model, x = Eager(), random.normal(size=(2, 6)).astype("float32")
    model(x)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*cannot be built automatically")
        discrete = quantal.discretize(model, "ternary")
        baked = quantal.bake(discrete)
    assert len(parameters_of(discrete)) == 2
    np.testing.assert_array_equal(numpy(baked(x)), numpy(discrete(x)))
    np.testing.assert_array_equal(numpy(discrete.first.layer.bias), numpy(model.first.bias))


def test_lora_and_quantized_layers_are_refused_by_name():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="adapted")])
    model.layers[0].enable_lora(2)
    assert "layer 'adapted' uses LoRA" in refused(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="small")])
        model.quantize("int8")
    assert "layer 'small' uses Keras's quantization" in refused(model)


def test_rules_that_name_nothing_are_refused_with_the_nearest_paths(random):
    model, _ = sequential(random)
    words = refused(model, {"tow/kernel": "binary"})
    assert "names no weight" in words
    assert words.index("two/kernel") < words.index("Give an expression")
    assert "leaves" in refused(model, {"one": "binary", "one/kernel": "nf4"})
    assert "no kernel" in refused(keras.Sequential([keras.Input((4,)), layers.ReLU()]))
    assert "has the keys ['estimator']" in refused(model, {"one": {"estimator": "annealed"}})
    assert "scale is 'some'" in refused(model, "binary", scale="some")


def test_the_names_are_public():
    assert quantal.discretize is discretize
    assert quantal.bake is bake


@on_one_backend
class TestKernelsOfSmallFanIn:
    """They stay free where they are few: a sum of nine signs is a coarse thing."""

    def kernels_of(self, rules, *first, **arguments):
        """Whether each kernel is on a list, and why, of a network with such a first layer."""
        first = first or (layers.Conv2D(8, 3),)
        model = keras.Sequential(
            [keras.Input((16, 16, 1)), *first, layers.Flatten(), layers.Dense(4)]
        )
        discrete = discretize(model, rules, **arguments)
        report = quantal.summary(discrete, compared_with=model, rules=rules)
        return [
            (row.values is not None, row.why) for row in report.rows if row.path.endswith("kernel")
        ]

    @pytest.mark.parametrize(
        "rules", ["binary", [1, -1, 0.5], {"values": "ternary"}, lambda w: Values.k_means(w, 8)]
    )
    def test_a_rule_for_every_kernel_leaves_them_free_and_says_so(self, rules):
        assert self.kernels_of(rules) == [(False, "fan-in of 9: too small"), (True, "every kernel")]

    def test_a_rule_that_names_them_wins(self):
        assert self.kernels_of({"kernel": "binary"}) == [(True, "rule 'kernel'")] * 2

    def test_a_long_list_is_fine_enough(self):
        assert self.kernels_of("nf4") == [(True, "every kernel")] * 2

    def test_where_they_are_many_they_are_listed_and_the_summary_says_so(self):
        pooled = layers.Conv2D(8, 3), layers.GlobalAveragePooling2D()
        assert self.kernels_of("binary", *pooled) == [
            (True, "every kernel, also of fan-in 9"),
            (True, "every kernel, also of fan-in 8"),
        ]

    @pytest.mark.parametrize(
        ("first", "fan_in"),
        [
            (layers.DepthwiseConv2D(3, depth_multiplier=2), 9),
            (layers.Conv2DTranspose(2, 2), 4),
            (layers.EinsumDense("bhwc,cd->bhwd", (16, 16, 2)), 1),
            (layers.TimeDistributed(layers.Conv1D(4, 3)), 3),
        ],
    )
    def test_of_every_kind_of_layer(self, first, fan_in):
        assert self.kernels_of("binary", first)[0] == (False, f"fan-in of {fan_in}: too small")

    def test_fan_in_of_27_is_small_and_that_of_32_is_not(self):
        for channels, is_listed in ((3, False), (4, True)):
            first = layers.Conv2D(channels, 1), layers.Conv2D(4, 3), layers.Conv2D(64, 3)
            assert self.kernels_of("binary", *first)[1][0] is is_listed
