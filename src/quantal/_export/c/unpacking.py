"""Write C that unpacks codes: the weights of an output, before they meet the inputs."""

from quantal._export.c.encoding import decoding
from quantal._export.c.text import filled, template

_NAMES = {2: "four", 4: "two", 1: "eight"}
"""How many codes of so many bits a byte holds."""


def unpacking(bits: int, weight: str, kind: str, parameters: str = "") -> str:
    """Return the text of a C function that unpacks `size` codes from number `i` on.

    Args:
        bits: Bits of a code.
        weight: C of the number that a code stands for, which is written as `@code@`.
        kind: The type of that number in C.
        parameters: What it takes besides the codes, as C declares it after a comma.
    """
    return filled(
        template("unpack.c").rstrip(),
        parameters=parameters,
        type=kind,
        whole_bytes=_whole_bytes(bits, weight) if bits in _NAMES else "",
        single=weight.replace("@code@", decoding(bits)),
    )


def _whole_bytes(bits: int, weight: str) -> str:
    """Return the lines that unpack up to a byte's start, and then all codes of a byte at once."""
    count, mask, name = 8 // bits, 2**bits - 1, _NAMES[bits]
    single = weight.replace("@code@", decoding(bits))
    lines = [
        f"for (; k < size && i % {count}; k++, i++) kernel[k] = {single};",
        f"for (; k + {count} <= size; k += {count}, i += {count}) {{",
        f"    const uint32_t {name} = codes[i / {count}];",
        *(
            f"    kernel[{f'k + {n}' if n else 'k'}] = "
            + weight.replace(
                "@code@", f"{name} >> {n * bits} & {mask}" if n else f"{name} & {mask}"
            )
            + ";"
            for n in range(count)
        ),
        "}",
    ]
    return "".join(f"    {line}\n" for line in lines)
