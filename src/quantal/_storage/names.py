"""Names for things that may share one."""

from collections.abc import Container


def unused_name(name: str, taken: Container[str]) -> str:
    """Return the name, with a number behind it where it is taken.

    >>> unused_name("kernel", ["bias"]), unused_name("kernel", ["kernel", "kernel#2"])
    ('kernel', 'kernel#3')
    """
    unused, count = name, 1
    while unused in taken:
        count += 1
        unused = f"{name}#{count}"
    return unused
