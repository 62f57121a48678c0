"""An extension of griffe, which reads docstrings for the site: examples are shown as code."""

import re

import griffe

_EXAMPLE = re.compile(r"^( *)>>> .*\n?(?:^\1\S.*\n?)*", re.MULTILINE)


def with_fences(text):
    """Return a docstring whose examples, lines from `>>>` to the next empty one, are fenced."""
    return _EXAMPLE.sub(_fenced, re.sub(r"^Examples?:\n", "", text, flags=re.MULTILINE))


def _fenced(match):
    indent = match[1]
    return f"{indent}```pycon\n{match[0].rstrip()}\n{indent}```\n"


class Examples(griffe.Extension):
    """The extension that fences the examples of every docstring."""

    def on_object(self, *, obj, loader, **kwargs):
        """Change the docstring of an object after it was read."""
        if obj.docstring and ">>> " in obj.docstring.value:
            obj.docstring.value = with_fences(obj.docstring.value)
