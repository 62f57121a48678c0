import io

import keras
import matplotlib.pyplot
import numpy as np
import pytest

import quantal
from conftest import on_one_backend
from quantal.plots import plot_values


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
    assert labels == ["height", "width", "a very long name …"]


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
