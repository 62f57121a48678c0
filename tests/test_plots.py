import csv
import functools
import io
import types

import keras
import matplotlib.pyplot
import numpy as np
import pytest

import quantal
from conftest import on_one_backend
from quantal.plots import (
    plot_beam,
    plot_codes,
    plot_estimator,
    plot_latents,
    plot_sizes,
    plot_training,
    plot_values,
)
from quantal.plots._sources import Listed


def multiplier(values, size, name=None):
    layer = quantal.LearnableMultiplier(values, seed=0, name=name)
    layer.build((None, size))
    return layer.discrete_parameters


def dense(values, rows, columns):
    layer = quantal.Discrete(keras.layers.Dense(columns), values, seed=0)
    layer.build((None, rows))
    return layer.discrete_parameters


def drawn(figure):
    with io.BytesIO() as file:
        figure.savefig(file)
        return file.getvalue()


@pytest.mark.parametrize(
    "values",
    [
        [0.3],
        [0],
        [1, -1],
        [1, -1, 0.5, -0.5],
        [1000.5, 1001, 1000, 1002],
        [1.5e38, -1.5e38],
        [1e-37, 2e-37],
        "nf4",
        "powers_of_two:7",
        "signed:8",
    ],
    ids=str,
)
def test_every_list_is_drawn(values):
    figure = plot_values([*multiplier(values, 12), *dense(values, 5, 3)])
    assert drawn(figure).startswith(b"\x89PNG")
    assert len(figure.axes) == 2 * 2 + 1  # and the colour bar


@pytest.mark.parametrize("shape", [(), (1,), (0,), (1, 1), (2000,), (3, 3, 2, 4), (784, 10)])
def test_every_shape_is_drawn(shape):
    latent = keras.Variable(np.linspace(-1, 1, int(np.prod(shape))).reshape(shape), "float32")
    parameter = quantal.Parameter(latent, quantal.Values("nf4"), quantal.estimators.get("annealed"))
    drawn(plot_values([parameter]))


def test_what_the_picture_says():
    (parameter,) = multiplier([1, -1, 0.5, -0.5], 4, name="signs")
    parameter.set_codes([0, 0, 1, 3])
    stems, usage = plot_values([parameter]).axes
    assert stems.get_title(loc="left").startswith("signs/kernel")
    np.testing.assert_array_equal(stems.collections[1].get_offsets()[:, 1], [1, 1, -1, -0.5])
    # Ascending, from below.
    assert [label.get_text() for label in usage.get_yticklabels()] == ["−1", "−0.5", "0.5", "1"]
    assert [bar.get_width() for bar in usage.patches] == [1, 1, 0, 2]
    assert [note.get_text() for note in usage.texts] == ["25.0%", "25.0%", "0.0%", "50.0%"]


def test_the_colour_bar_names_the_values():
    figure = plot_values(dense([4, 1000.5, 1000], 2, 2))
    bar = figure.axes[-1]
    assert [label.get_text() for label in bar.get_yticklabels()] == ["4", "1000", "1000.5"]


def test_more_parameters_than_are_drawn():
    parameters = [parameter for _ in range(10) for parameter in multiplier("binary", 3)]
    figure = plot_values(parameters, title="Ten")
    assert len(figure.axes) == 16
    assert figure.get_suptitle() == "Ten, and 2 more not drawn"
    drawn(figure)


def test_no_window_and_no_pyplot_figure():
    plot_values(multiplier("binary", 3))
    assert matplotlib.pyplot.get_fignums() == []


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="There are 0 parameters"):
        plot_values([])
    with pytest.raises(ValueError, match="'free' has no parameter on a list"):
        plot_values(keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)], name="free"))
    with pytest.raises(ValueError, match="most is 0"):
        plot_values(multiplier("binary", 3), most=0)


def stems_of(figure):
    return figure.axes[0].collections[1].get_offsets()[:, 1].tolist()


@on_one_backend
def test_what_is_drawn_of():
    """A model, a layer, a parameter, parameters, a weight, an array: the same picture."""
    layer = quantal.LearnableMultiplier([1, -1, 0.5, -0.5], name="vector")
    model = keras.Sequential([keras.Input((4,)), layer])
    layer.discrete_parameters[0].set_codes([0, 3, 1, 2])
    expected = [1, -0.5, -1, 0.5]
    parameters = quantal.parameters_of(model)
    for source in (model, layer, parameters[0], parameters, layer.kernel, expected):
        assert stems_of(plot_values(source)) == expected
    assert plot_values(expected, [1, -1, 0.5, -0.5, 0]).axes[1].get_yticks().size == 5


@on_one_backend
def test_results_of_searches_are_drawn():
    search = functools.partial(quantal.search, budget=quantal.Budget(evaluations=100), verbose=0)
    result = search(lambda v: -v.sum(axis=1), [1, -1, 0.5], n=3)
    figure = plot_values(result)
    assert stems_of(figure) == [1, 1, 1]
    assert figure.axes[1].get_yticks().size == 3  # Values that nothing uses are in the list, too.
    assert stems_of(plot_values(search(lambda v: -v.sum(axis=1), [[1, 2], [5, 3]]))) == [2, 5]
    beam = search(quantal.objectives.Magnitude([1, 1j, -1]), [1, 1j, -1, -1j])
    headings = [plot_beam(source).axes[0].get_title(loc="left") for source in (beam, {"a": beam})]
    assert headings[1] == f"a:  {headings[0]}"


def test_sources_that_are_refused():
    with pytest.raises(TypeError, match="Expected a Keras model or layer"):
        plot_values("model.keras")
    with pytest.raises(TypeError, match=r"complex numbers.*plot_beam"):
        plot_values(np.exp(1j * np.arange(3)))
    with pytest.raises(ValueError, match="1 of 2 numbers of the array are NaN"):
        plot_values([1.0, np.nan])
    with pytest.raises(ValueError, match="2 of 3 numbers of the array are not in the list"):
        plot_values([1, 0.2, 0.3], "binary")
    with pytest.raises(ValueError, match=r"300 different numbers.*values=\[1, -1\]"):
        plot_values(np.arange(300))
    with pytest.raises(ValueError, match="Leave values out"):
        plot_values(multiplier("binary", 3), "ternary")
    with pytest.raises(TypeError, match="Expected a Keras model or layer"):
        plot_values([*multiplier("binary", 3), 1])
    with pytest.raises(ValueError, match=r"2 names, and the shapes are \(3,\)"):
        plot_values([1, 1, -1], names=["height", "width"])


def test_positions_have_names():
    figure = plot_values(multiplier("binary", 3), names=["height", "width", "weight"])
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["height", "width", "weight"]
    image = plot_values(dense("binary", 3, 5), names=["height", "width", "a very long name indeed"])
    labels = [label.get_text() for label in image.axes[0].get_yticklabels()]
    assert labels == ["height", "width", "a very l…me indeed"]


def test_a_long_vector_is_folded():
    ranks = np.resize([-1, 1, 1], 5000)
    figure = plot_values(ranks)
    (image,) = figure.axes[0].images
    shown = image.get_array()
    np.testing.assert_array_equal(shown.compressed(), np.resize([0, 1, 1], 5000))
    first = figure.axes[0].get_yticklabels()[1].get_text()
    row = int(figure.axes[0].get_yticks()[1])
    assert int(first.replace(",", "")) == row * shown.shape[1]
    drawn(figure)


def test_lists_per_channel():
    """Each channel's codes are ranked in its own list."""
    values = quantal.Values([[1, 0, -1], [-2, 2, 0]], axis=-1)
    latent = keras.Variable([[1.0, -2.0], [-1.0, 2.0], [0.0, 0.0]])
    parameter = quantal.Parameter(latent, values, quantal.estimators.get("straight_through"))
    parameter.set_codes([[0, 0], [2, 1], [1, 2]])
    figure = plot_values(parameter)
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), [[2, 0], [0, 2], [1, 1]])
    labels = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert labels == ["≈ −1.5", "≈ 0", "≈ 1.5"]


@on_one_backend
def test_choices_are_drawn_with_what_each_list_costs():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
    menu = ["binary", "ternary", "powers_of_two:4"]
    new = quantal.discretize(model, bits=12, values=menu, data=x, verbose=0)
    figure = quantal.plots.plot_choices(quantal.parameters_of(new), title="kernels")
    drawn(figure)
    lines = figure.axes[0].lines
    for parameter, line, ring in zip(
        quantal.parameters_of(new), lines[::2], lines[1::2], strict=True
    ):
        assert len(line.get_xdata()) == 3
        assert ring.get_xdata()[0] == parameter.choice.option.bytes / 1e3
    listed = quantal.discretize(model, "ternary")
    with pytest.raises(ValueError, match="None of 2 parameters was chosen from a menu"):
        quantal.plots.plot_choices(quantal.parameters_of(listed))
    with pytest.raises(TypeError, match="Expected a model or layer with discrete layers"):
        quantal.plots.plot_choices([1, -1])


def bars_of(axes):
    """The elements of each bar of a histogram, and where it begins."""
    for patch in axes.patches:
        tops, edges, feet = patch.get_data()
        heights = tops - feet
        yield from zip(heights[heights > 0], edges[:-1][heights > 0], strict=True)


@on_one_backend
def test_latents_are_counted_between_their_values():
    figure = plot_latents([-1.0, -0.9, 0.1, 0.2, 5.0], values=[1, -1])
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "5 elements,  20.0% beyond the ends"
    bars = list(bars_of(axes))
    assert sum(height for height, _ in bars) == 5
    # In gaps: -1 is drawn at 0, 1 at 1, and the boundary halfway.
    assert sum(height for height, start in bars if start < 0.45) == 2
    drawn(figure)


@on_one_backend
@pytest.mark.parametrize("values", [[0.3], "nf4", "signed:8"], ids=str)
def test_latents_over_every_list(values):
    figure = plot_latents([*multiplier(values, 12), *dense(values, 5, 3)])
    counts = [sum(height for height, _ in bars_of(axes)) for axes in figure.axes]
    assert counts == [12, 15]
    drawn(figure)


@on_one_backend
def test_latents_of_lists_per_channel():
    values = quantal.Values([[1, -1], [4, 8]], axis=-1)
    latent = keras.Variable([[1.0, 4.1]])
    parameter = quantal.Parameter(latent, values, quantal.estimators.get("straight_through"))
    parameter.set_codes([[0, 0]])
    left, right = (start for _, start in bars_of(plot_latents(parameter).axes[0]))
    assert left <= 0 < 1 <= right + 0.1  # 4 is the lowest of its list, 1 the highest.


@on_one_backend
@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("model/signs/kernel", "model/signs/kernel,  1 element"),
        ("sequential/learnable_multiplier/kernel", "…/learnable_multiplier/kernel,  1 element"),
        (
            "blocks/a_layer_with_a_name_of_some_length/kernel",
            "…th_a_name_of_some_length/kernel,  1 element",
        ),
    ],
)
def test_a_path_is_cut_between_its_parts(path, title):
    listed = Listed(path, quantal.Values([1, -1]), np.array([0]), np.array([1.0]))
    assert listed.title(44) == title


def test_names_with_dollars_are_no_formulas():
    parameters = multiplier([1, -1], 4, "in $ or $x_{")
    names = ["price $", "$a_{$", "b", "c"]
    history = {"loss": [1.0], "$x_{$": [2.0], "flips/$x_{$": [0.1], "flips/b": [0.1]}
    figures = [
        plot_values(parameters, names=names),
        plot_latents(parameters),
        plot_training(history),
        plot_sizes({"$x_{$": (10, 0.5)}, measure="$x_{$"),
    ]
    for figure in figures:
        drawn(figure)
    assert "in $ or $x_{" in figures[0].axes[0].get_title(loc="left").replace("\\$", "$")


def test_long_paths_leave_room():
    latent = keras.Variable(np.ones((3, 3, 64, 128)), name="kernel_latent")
    latent._path = "a_model/with/very/deeply/nested/blocks/conv2d_12/kernel_latent"
    parameter = quantal.Parameter(
        latent, quantal.Values("binary"), quantal.estimators.get("annealed")
    )
    title = plot_values(parameter).axes[0].get_title(loc="left")
    assert title.endswith("conv2d_12/kernel,  3 × 3 × 64 × 128")
    assert title.startswith("…")
    assert len(title) <= 44
    layer = quantal.Discrete(keras.layers.Dense(10, name="classes"), "ternary", scale="learned")
    layer.build((None, 64))
    assert "scale" in plot_values(layer).axes[0].get_title(loc="left")
    (parameter,) = layer.discrete_parameters
    parameter.latent._path = f"a_model/with/{parameter.latent.path}"
    title = plot_values(layer).axes[0].get_title(loc="left")
    assert "classes/kernel,  64 × 10" in title


def lines_of(axes):
    return {line.get_label(): np.asarray(line.get_ydata()) for line in axes.lines}


@on_one_backend
def test_the_picture_of_an_estimator_is_its_value_and_gradient():
    figure = plot_estimator("straight_through", [1, -1])
    value, factor = figure.axes
    (step,) = [line for line in value.lines if len(line.get_xdata()) > 2]
    x = np.asarray(step.get_xdata())
    np.testing.assert_array_equal(step.get_ydata(), np.where(x >= 0, 1, -1))
    up, down = [line.get_ydata() for line in factor.lines if len(line.get_xdata()) > 2]
    np.testing.assert_allclose(up, np.where(x <= 1, 1, 0))  # Beyond the end only back.
    np.testing.assert_allclose(down, np.where(x >= -1, 1, 0))
    drawn(figure)


@on_one_backend
def test_what_does_not_learn_has_a_gradient_of_zero():
    def gathered(latent):
        codes = keras.ops.cast((keras.ops.sign(latent) + 1) / 2, "int32")
        return keras.ops.take(keras.ops.convert_to_tensor([-1.0, 1.0]), codes)

    figure = plot_estimator({"sign": keras.ops.sign, "gather": gathered, "ours": "annealed"})
    above, below = figure.axes[:3], figure.axes[3:]
    assert [axes.get_title(loc="left") for axes in above] == ["sign", "gather", "ours"]
    factors = [
        [line.get_ydata() for line in axes.lines if len(line.get_ydata()) > 2] for axes in below
    ]
    largest = [np.max(lines) for lines in factors]
    assert largest == [0, 0, 1]
    assert list(lines_of(above[2]))[-3:] == ["start of training", "middle", "end"]


@on_one_backend
@pytest.mark.parametrize("name", ["settling", "gumbel_softmax", "mean_field", "residual"])
def test_every_kind_of_estimator_is_drawn(name):
    figure = plot_estimator(name, "nf4" if name == "settling" else "ternary")
    has_spread = name in ("gumbel_softmax", "mean_field")
    assert len(figure.axes[0].collections) == has_spread
    drawn(figure)


@on_one_backend
def test_estimators_that_are_refused():
    with pytest.raises(ValueError, match="Expected one of straight_through"):
        plot_estimator("sine")
    with pytest.raises(TypeError, match="Give an instance, not a class"):
        plot_estimator(quantal.estimators.Annealed)
    with pytest.raises(ValueError, match="Expected one list"):
        plot_estimator("annealed", [[1, -1], [2, 3]])
    with pytest.raises(ValueError, match="Expected a number for each latent"):
        plot_estimator(keras.ops.sum)


HISTORY = {"loss": [3.0, 2.0, 1.0, 0.5], "val_loss": [2.5, 2.0], "flips": [0.4, 0.2, 0.1, 0.0]}


def test_a_run_is_drawn(tmp_path):
    figure = plot_training({**HISTORY, "mae": [0.1, 0.2, 0.3, 0.4], "learning_rate": 4 * [1.0]})
    loss, _, flips, _ = figure.axes
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "mae", "flips", ""]
    # Measured every second epoch.
    assert [line.get_xdata().tolist() for line in loss.lines] == [[1, 2, 3, 4], [2, 4]]
    np.testing.assert_array_equal(lines_of(flips)["all"], HISTORY["flips"])
    drawn(figure)
    path = tmp_path / "log.csv"
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([["epoch", "loss", "val_loss"], [4, 3.0, "NA"], [5, 2.0, 2.5]])
    (axes,) = plot_training(path).axes
    assert [line.get_xdata().tolist() for line in axes.lines] == [[5, 6], [6]]


def test_histories_that_are_refused(tmp_path):
    with pytest.raises(TypeError, match=r"Expected what model\.fit returned"):
        plot_training([1, 2])
    with pytest.raises(ValueError, match="history has no numbers"):
        plot_training({})
    with pytest.raises(ValueError, match="3 numbers for 'val_loss' and 4 epochs"):
        plot_training({"loss": [1.0] * 4, "val_loss": [1.0] * 3})
    path = tmp_path / "log.csv"
    path.write_text("epoch,loss\n0,much\n")
    with pytest.raises(ValueError, match="'much' in the column 'loss'"):
        plot_training(path)
    with pytest.raises(FileNotFoundError):
        plot_training(tmp_path / "none.csv")


def a_watch():
    codes = np.array([[0, 1, 1], [1, 1, 1], [1, 0, 1], [1, 0, 1]])
    return types.SimpleNamespace(
        codes={"signs/kernel": codes, "other": codes[:, :2]},
        values={"signs/kernel": quantal.Values([1, -1]), "other": quantal.Values([0, 3])},
        elements={"signs/kernel": np.array([0, 7, 90]), "other": np.arange(2)},
        flips={"signs/kernel": np.array([1 / 3, 1 / 3, 0]), "other": np.array([0.5, 0.5, 0])},
    )


def test_codes_over_epochs():
    figure = plot_codes(a_watch())
    first = figure.axes[0]
    assert first.get_title(loc="left") == "signs/kernel,  3 elements,  last flip in epoch 2"
    # Code 0 is the larger value, and so the higher rank; elements go down, epochs across.
    shown = first.images[0].get_array()
    np.testing.assert_array_equal(shown, [[1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]])
    assert [label.get_text() for label in first.get_yticklabels()] == ["0", "7", "90"]
    drawn(figure)
    named = plot_codes(a_watch(), names=["height", "width"]).axes[1]
    assert [label.get_text() for label in named.get_yticklabels()] == ["height", "width"]
    bar = plot_codes([[0, 1], [0, 0]]).axes[1]
    assert [label.get_text() for label in bar.get_yticklabels()] == ["code 0", "code 1"]
    flips = plot_training({"loss": [3, 2, 1], "flips": [0.4, 0.3, 0]}, a_watch()).axes[1]
    assert list(lines_of(flips)) == ["all", "signs/kernel", "other"]


@pytest.mark.parametrize("metrics", [["loss"], ["loss", "mae"]])
def test_a_long_legend_of_flips_covers_no_line(metrics):
    each = {f"flips/model/dense_{i}/kernel": [0.4, 0.3, 0.1 * i] for i in range(4)}
    history = {**{name: [3, 2, 1] for name in metrics}, "flips": [0.4, 0.3, 0], **each}
    figure = plot_training(history)
    drawn(figure)
    assert figure.axes[len(metrics)].get_legend() is None
    legend = figure.legends[0] if len(metrics) == 1 else figure.axes[3].get_legend()
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["all", *(f"dense_{i}/kernel" for i in range(4))]


@on_one_backend
def test_a_watch_of_a_run_is_drawn():
    model = keras.Sequential([keras.Input((5,)), quantal.LearnableMultiplier(name="signs")])
    model.compile("adam", "mse")
    watch, x = quantal.callbacks.Watch(), np.ones((32, 5), "float32")
    history = model.fit(x, -x, epochs=3, verbose=0, callbacks=[watch])
    drawn(plot_codes(watch, names=list("abcde")))
    assert [axes.get_ylabel() for axes in plot_training(history, watch).axes] == ["loss", "flips"]


def test_codes_that_are_refused():
    with pytest.raises(TypeError, match="Expected the callback"):
        plot_codes([0.5, 1.5])
    with pytest.raises(ValueError, match=r"the shape \(3,\)"):
        plot_codes([0, 1, 1])
    with pytest.raises(ValueError, match="2"):
        plot_codes([[0, 2]], values=[1, -1])
    with pytest.raises(ValueError, match="1 names, and there are 2 elements"):
        plot_codes([[0, 1]], names=["a"])


POINTS = [("float", 4000, 0.93), ("ternary", 300, 0.90), ("ternary", 310, 0.92), ("bad", 900, 0.5)]


def test_the_front_of_sizes():
    figure = plot_sizes(POINTS)
    (axes,) = figure.axes
    best, others = [points.get_offsets().tolist() for points in axes.collections[-2:]]
    assert best == [[305, 0.91], [4000, 0.93]]
    assert others == [[900, 0.5]]
    assert {text.get_text() for text in axes.texts} == {"float", "ternary", "bad"}
    drawn(figure)
    losses = plot_sizes({"a": (1, 0.5), "b": (2, 0.4), "c": (3, 0.9)}, maximize=False)
    assert losses.axes[0].collections[-2].get_offsets().tolist() == [[1, 0.5], [2, 0.4]]


def test_names_of_points_do_not_overlap():
    figure = plot_sizes({f"list {i}": (1000 + i, 0.9) for i in range(12)})
    drawn(figure)
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) > 3
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_points_that_are_refused():
    with pytest.raises(TypeError, match="Expected bytes and score by label"):
        plot_sizes({"ternary": 0.9})
    with pytest.raises(ValueError, match="There are no points"):
        plot_sizes({})
    with pytest.raises(ValueError, match="Expected positive bytes"):
        plot_sizes({"ternary": (0, 0.9)})


def test_a_beam_is_drawn_where_it_is():
    angle, n = 20.0, np.arange(64)
    vector = np.exp(-1j * np.pi * n * np.sin(np.deg2rad(angle)))
    figure = plot_beam({"free": vector})
    axes = figure.axes[0]
    assert axes.get_title(loc="left") == "free:  0.00 dB at 20.0°"
    angles, levels = axes.lines[0].get_data()
    exact = np.abs(np.exp(1j * np.pi * np.outer(np.sin(np.deg2rad(angles)), n)) @ vector) / 64
    np.testing.assert_allclose(levels, 20 * np.log10(np.maximum(exact, 10**-2.25)), atol=1e-6)
    drawn(figure)
    # Between its points it is straight to a tenth of a decibel, in every lobe.
    fine = np.linspace(-89.9, 89.9, 20_011)
    exact = np.abs(np.exp(1j * np.pi * np.outer(np.sin(np.deg2rad(fine)), n)) @ vector) / 64
    straight = np.interp(fine, angles, levels)
    shown = np.maximum(straight, -40), np.maximum(20 * np.log10(exact), -40)
    assert np.abs(np.subtract(*shown)).max() < 0.2
    assert len(angles) < 6000


def test_beams_that_are_refused():
    with pytest.raises(ValueError, match=r"a has the shape \(2, 2\)"):
        plot_beam({"a": np.ones((2, 2))})
    with pytest.raises(ValueError, match="not all of them zero"):
        plot_beam([0, 0])
    with pytest.raises(TypeError, match="Expected an array of real or complex numbers"):
        plot_beam(["a"])
    with pytest.raises(ValueError, match="Expected a positive spacing"):
        plot_beam([1, 1], spacing=0)
