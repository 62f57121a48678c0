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


def test_a_model_in_place_of_its_parameters():
    model = keras.Sequential([keras.Input((3,)), quantal.LearnableMultiplier()])
    with pytest.raises(TypeError, match=r"Expected a list of parameters, such as quantal\.param"):
        plot_values(model)


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
    with pytest.raises(TypeError, match="Expected a list of parameters"):
        quantal.plots.plot_choices(listed)
