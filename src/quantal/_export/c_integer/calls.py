"""Write the kernels of an integer network as calls of C functions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from quantal._export.c_integer.definitions import IntegerDefinitions
from quantal._export.c_integer.encoding import encoding_of
from quantal._export.c_integer.kernels import Kernel, has_signs
from quantal._export.c_integer.layers import Written, looked_up, normalized
from quantal._export.c_integer.memory import Location, Memory
from quantal._export.c_integer.products import Stored, product_function
from quantal._export.c_integer.rounding import Rounded, rounded, rounding_operations
from quantal._export.graph.steps import Repetition, Window
from quantal._export.integer.layer_steps import LookedUp, Normalized, SimpleRecurrent
from quantal._export.integer.program import IntegerProgram
from quantal._export.integer.steps import (
    BroadcastProduct,
    Copied,
    EvenTotal,
    Integers,
    Joined,
    Largest,
    Multiplied,
    Padded,
    Products,
    Total,
    WeightedSum,
    taps_of,
)
from quantal._export.operations import Operations


class KernelWriter:
    """A writer turns kernels into calls, and defines the functions that they need.

    Args:
        define: The definitions of the source.
        program: The integer network.
        memory: Where its values lie.
    """

    def __init__(self, define: IntegerDefinitions, program: IntegerProgram, memory: Memory) -> None:
        self._define = define
        self._program = program
        self._memory = memory

    def written(self, kernel: Kernel) -> Written:
        """Return a kernel in C."""
        sources = [self._memory.locations[source] for source in kernel.sources]
        target = self._memory.locations[kernel.value]
        match kernel.step:
            case Products():
                return self._products(kernel, kernel.step, sources[0], target)
            case Total() | EvenTotal():
                return self._total(kernel, kernel.step, sources[0], target)
            case Largest():
                return self._largest(kernel.step, sources[0], target)
            case Joined():
                return self._joined(kernel.step, sources, target)
            case Padded():
                return self._padded(kernel.step, sources[0], target)
            case Copied():
                return self._copied(kernel.step, sources[0], target)
            case LookedUp():
                return looked_up(self._define, kernel.step, sources[0], target)
            case Normalized():
                return normalized(self._define, kernel.step, sources[0], target)
            case SimpleRecurrent():
                return self._recurrent(kernel, kernel.step, sources[0], target)
        return self._map(kernel, sources, target)

    def copy(self, source: int, target: Location) -> str:
        """Return the call that copies a value into an output."""
        location = self._memory.locations[source]
        parts = {"inputs": f"const {location.type} *input", "sum": "input[o]", "result": "sum"}
        name = self._define.function("widen", "map", to=target.type, parameters="", **parts)
        return f"{name}({self._program.size_of(source)}, {location.text}, {target.text});"

    def _rounded(self, kernel: Kernel, sums: int, channels: int, to: str) -> "_Result":
        """Return the result of a kernel whose sums repeat after so many channels.

        Args:
            kernel: The kernel.
            sums: The number of results.
            channels: The number of results of a position: the loop's index `o` counts them.
            to: The type of the results.
        """
        value = kernel.value if kernel.rounding is None else self._sums_of(kernel)
        bounds = self._program.bounds_of(value)
        result = rounded(self._define, kernel.rounding, bounds, to)
        index = "0" if result.period == 1 else "o"
        if result.period not in (1, channels):
            index = f"o % {result.period}"
            if channels % result.period:
                index = f"((y * w->out_width + x) * w->out_channels + o) % {result.period}"
        text = result.text.replace("@channel@", index)
        return _Result(text, result.arguments, rounding_operations(kernel.rounding, bounds, sums))

    def _sums_of(self, kernel: Kernel) -> int:
        """Return the value that holds the sums before their rounding."""
        node = self._program.nodes[kernel.value - len(self._program.inputs)]
        return node.sources[0]

    def _products(
        self, kernel: Kernel, step: Products, source: Location, target: Location
    ) -> Written:
        window = step.window
        result = self._rounded(kernel, window.size, window.out_channels, target.type)
        taps = int(taps_of(window).valid.sum()) * window.out_channels
        if self._is_xnor(kernel, step):
            return self._signs(step, result, source, target)
        stored = Stored(result.text, result.arguments, source.type, target.type)
        function = product_function(self._define, step, stored)
        encoding = encoding_of(step.weights)
        sums = taps * (window.in_channels // window.groups)
        operations = Operations(sums, sums * encoding.shifts, sums * (not encoding.product))
        call = _call(function.name, function.first, function.arguments, [source], target)
        return Written([call], operations + result.operations, unpacked=function.length)

    def _is_xnor(self, kernel: Kernel, step: Products) -> bool:
        spread = step.window.spread_y, step.window.spread_x
        plain = (
            step.window.groups == 1 and (step.zero, step.multiple) == (0, 1) and spread == (1, 1)
        )
        is_signs = set(np.unique(step.weights).tolist()) <= {-1, 1}
        return plain and is_signs and has_signs(self._program, kernel.sources[0])

    def _signs(
        self, step: Products, result: "_Result", source: Location, target: Location
    ) -> Written:
        """Return products of signs: XNOR of words, and their bits counted."""
        window = step.window
        words = -(-step.weights.shape[1] // 32)
        bits_set = self._define.function("bits_set", "bits_set")
        arguments = {
            "const uint32_t *sign_weights": self._define.array(
                "sign_weights", "uint32_t", _words_of_signs(step.weights).ravel()
            )
        } | result.arguments
        function = self._define.function(
            "products_of_signs",
            "signs",
            parameters=_parameters(arguments),
            result=result.text,
            bits_set=bits_set,
            **{"from": source.type, "to": target.type},
        )
        operations = Operations(additions=window.size * words, words=window.size * words)
        return Written(
            [_call(function, self._define.window(window), arguments, [source], target)],
            operations + result.operations,
            words,
        )

    def _total(
        self, kernel: Kernel, step: Total | EvenTotal, source: Location, target: Location
    ) -> Written:
        window = step.window
        parts = {"multiple": str(step.multiple)} if isinstance(step, EvenTotal) else {}
        result = self._rounded(kernel, window.size, window.out_channels, target.type)
        function = self._define.function(
            "even_total" if parts else "total",
            "even_total" if parts else "total",
            parameters=_parameters(result.arguments),
            result=result.text,
            **parts,
            **{"from": source.type, "to": target.type},
        )
        operations = Operations(additions=_taps(window), products=window.size * len(parts))
        operations += result.operations
        return Written(
            [_call(function, self._define.window(window), result.arguments, [source], target)],
            operations,
        )

    def _largest(self, step: Largest, source: Location, target: Location) -> Written:
        window, falling = step.window, step.falling
        arguments, beyond = dict[str, str](), "v > largest"
        if falling.all():
            beyond = "v < largest"
        elif falling.any():
            flags = np.resize(falling, window.in_channels).astype(np.uint8)
            arguments["const uint8_t *falling"] = self._define.array("falling", "uint8_t", flags)
            beyond = "(falling[o] ? v < largest : v > largest)"
        function = self._define.function(
            "largest",
            "largest",
            parameters=_parameters(arguments),
            beyond=beyond,
            **{"from": source.type, "to": target.type},
        )
        return Written(
            [_call(function, self._define.window(window), arguments, [source], target)],
            Operations(comparisons=_taps(window)),
        )

    def _map(self, kernel: Kernel, sources: Sequence[Location], target: Location) -> Written:
        """Return a sum or product of values number by number, or a rounding alone."""
        size = self._program.size_of(kernel.value)
        result = self._rounded(kernel, size, size, target.type)
        names = ["input"] if len(sources) == 1 else [f"input_{i + 1}" for i in range(len(sources))]
        text, operations = self._sum_of(kernel, names, size)
        arguments = result.arguments | text.arguments
        inputs = ", ".join(
            f"const {source.type} *{name}" for source, name in zip(sources, names, strict=True)
        )
        function = self._define.function(
            "map",
            "map",
            parameters=_parameters(arguments),
            inputs=inputs,
            sum=text.text,
            result=result.text,
            to=target.type,
        )
        call = _call(function, str(size), arguments, sources, target)
        return Written([call], operations + result.operations)

    def _sum_of(self, kernel: Kernel, names: list[str], size: int) -> tuple[Rounded, Operations]:
        """Return the expression of `sum` from the inputs at the index `o`."""
        entries = [f"{name}[o]" for name in names]
        if isinstance(kernel.step, BroadcastProduct):
            entries = [
                f"{name}[{_index(repetition, size)}]"
                for name, repetition in zip(names, kernel.step.repetitions, strict=True)
            ]
        if isinstance(kernel.step, Multiplied | BroadcastProduct):
            return Rounded(" * ".join(entries), 1, {}), Operations(
                products=size * (len(entries) - 1)
            )
        if not isinstance(kernel.step, WeightedSum):
            return Rounded(entries[0], 1, {}), Operations()
        arguments = dict[str, str]()
        terms, products = [], 0
        for index, (entry, factor) in enumerate(zip(entries, kernel.step.factors, strict=True)):
            if (factor == factor[0]).all():
                terms.append(entry if factor[0] == 1 else f"{entry} * {factor[0]}")
                products += int(abs(factor[0]) != 1)
                continue
            name = f"factor_{index + 1}"
            array = self._define.array("factor", "int32_t", factor.astype(np.int32))
            arguments[f"const int32_t *{name}"] = array
            terms.append(f"{entry} * {name}[o % {len(factor)}]")
            products += 1
        operations = Operations(additions=size * (len(terms) - 1), products=size * products)
        return Rounded(" + ".join(terms), 1, arguments), operations

    def _recurrent(
        self, kernel: Kernel, step: SimpleRecurrent, source: Location, target: Location
    ) -> Written:
        """Return a loop over the steps of a sequence; each state lies where its result does."""
        units = step.units
        time = f"({step.time - 1} - t)" if step.backwards else "t"
        seen = source._replace(text=f"{source.text} + {time} * {step.inputs.window.in_channels}")
        before, after = target, target
        if step.sequences:
            before = target._replace(text=f"{target.text} + (t ? t - 1 : 0) * {units}")
            after = target._replace(text=f"{target.text} + t * {units}")
        sums = [
            Location("sums_of_steps", "int32_t"),
            Location(f"sums_of_steps + {units}", "int32_t"),
        ]
        inputs = Kernel(step.inputs, None, kernel.sources, kernel.value)
        states = Kernel(step.states, None, (kernel.value,), kernel.value)
        parts = [
            self._products(inputs, step.inputs, seen, sums[0]),
            self._products(states, step.states, before, sums[1]),
            self._state(kernel, step, sums, after),
        ]
        calls = [f"    {call}" for part in parts for call in part.calls]
        start = f"for (int i = 0; i < {units}; i++) ({target.text})[i] = 0;"
        operations = sum((part.operations for part in parts), Operations()) * step.time
        loop = f"for (int t = 0; t < {step.time}; t++) {{"
        return Written(
            [start, loop, *calls, "}"],
            operations,
            words=max(part.words for part in parts),
            sums=2 * units,
            unpacked=max(part.unpacked for part in parts),
        )

    def _state(
        self, kernel: Kernel, step: SimpleRecurrent, sums: list[Location], target: Location
    ) -> Written:
        """Return the rounded sum of the products with the input and with the state."""
        units, names = step.units, ["input_1", "input_2"]
        result = rounded(self._define, step.rounding, step.bounds, target.type)
        add = Kernel(WeightedSum(step.factors), None, (), kernel.value)
        text, operations = self._sum_of(add, names, units)
        arguments = result.arguments | text.arguments
        function = self._define.function(
            "map",
            "map",
            parameters=_parameters(arguments),
            inputs=", ".join(f"const int32_t *{name}" for name in names),
            sum=text.text,
            result=result.text.replace("@channel@", "0" if result.period == 1 else "o"),
            to=target.type,
        )
        rounding = rounding_operations(step.rounding, step.bounds, units)
        return Written(
            [_call(function, str(units), arguments, sums, target)], operations + rounding
        )

    def _joined(self, step: Joined, sources: Sequence[Location], target: Location) -> Written:
        stride = sum(step.lengths)
        calls, start = [], 0
        for source, length in zip(sources, step.lengths, strict=True):
            parts = {"from": source.type, "to": target.type}
            function = self._define.function("put", "part", **parts)
            to = f"{target.text} + {start}"
            calls.append(f"{function}({step.parts}, {length}, {stride}, {source.text}, {to});")
            start += length
        return Written(calls, Operations())

    def _padded(self, step: Padded, source: Location, target: Location) -> Written:
        parts = {"from": source.type, "to": target.type, "zero": str(step.zero)}
        function = self._define.function("pad", "pad", **parts)
        p = step.pad
        numbers = ", ".join(map(str, (*p.shape, p.top, p.bottom, p.left, p.right)))
        return Written([f"{function}({numbers}, {source.text}, {target.text});"], Operations())

    def _copied(self, step: Copied, source: Location, target: Location) -> Written:
        r = step.rearrange
        function = self._define.function("copy", "copy", **{"from": source.type, "to": target.type})
        lengths, steps = (
            self._define.array(name, "int", np.array(numbers, np.int32))
            for name, numbers in (("lengths", r.lengths), ("steps", r.steps))
        )
        numbers = f"{lengths}, {steps}, {len(r.lengths)}, {r.start}"
        return Written([f"{function}({numbers}, {source.text}, {target.text});"], Operations())


def _index(repetition: Repetition, size: int) -> str:
    """Return the C index that the result `o` of so many reads."""
    repeat, period = repetition
    if period == 1:
        return "0"
    index = "o" if repeat == 1 else f"o / {repeat}"
    return index if repeat * period == size else f"{index} % {period}"


class _Result(NamedTuple):
    """A result says what C stores of a sum: the text, the arguments it needs, and what it takes."""

    text: str
    arguments: dict[str, str]
    operations: Operations


def _taps(window: Window) -> int:
    return int(taps_of(window).valid.sum()) * window.out_channels


def _words_of_signs(weights: Integers) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint32]]":
    """Return the signs of each row in words of 32 bits, the lowest first: 1 for above 0."""
    bits = np.pad(weights > 0, ((0, 0), (0, -weights.shape[1] % 32)))
    packed = np.packbits(bits, axis=1, bitorder="little")
    return packed.reshape(-1).view("<u4").astype(np.uint32).reshape(len(weights), -1)


def _parameters(arguments: dict[str, str]) -> str:
    return "".join(f", {parameter}" for parameter in arguments)


def _call(
    function: str,
    first: str,
    arguments: dict[str, str],
    sources: Sequence[Location],
    target: Location,
) -> str:
    texts = [first, *arguments.values(), *(source.text for source in sources), target.text]
    return f"{function}({', '.join(texts)});"
