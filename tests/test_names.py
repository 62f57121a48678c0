"""Names say what a thing is; functions fit on a screen."""

import ast

import pytest

from repository import MODULES, SOURCE

pytestmark = pytest.mark.without_keras

# Words that say nothing as the name of a variable, argument or attribute: name the result, index,
# position, delta or path instead.
BANNED = {"found", "told", "made", "held", "own", "apart", "beside", "place", "places"}
LONGEST_BODY = 50  # lines without the docstring
MOST_ARGUMENTS = 13  # those of `polish`; fit of Keras has 16


def path_of(module):
    return SOURCE.parent.joinpath(*module.split(".")).with_suffix(".py")


def names_bound_in(text):
    """Every name that a source text gives to a variable, an argument or an attribute."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg


def functions_in(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            yield node


def lines_of_body(function):
    body = function.body
    if ast.get_docstring(function) is not None:
        body = body[1:]
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def count_of_arguments(function):
    arguments = function.args
    return len([*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs])


@pytest.mark.parametrize("module", MODULES)
def test_no_name_is_banned(module):
    assert set(names_bound_in(path_of(module).read_text())) & BANNED == set()


@pytest.mark.parametrize("module", MODULES)
def test_functions_fit_on_a_screen(module):
    text = path_of(module).read_text()
    long = [f.name for f in functions_in(text) if lines_of_body(f) > LONGEST_BODY]
    wide = [f.name for f in functions_in(text) if count_of_arguments(f) > MOST_ARGUMENTS]
    assert (long, wide) == ([], [])


def test_these_checks_can_fail():
    text = "def f(own):\n    '''Do.'''\n    found, x.place = 1, 2\n    for made in own: pass"
    assert sorted(names_bound_in(text)) == ["found", "made", "own", "place"]
    (function,) = functions_in(text)
    assert lines_of_body(function) == 2
    assert count_of_arguments(function) == 1
