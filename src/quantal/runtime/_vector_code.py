"""Write functions on vectors of floats in LLVM's intermediate language.

llvmlite, which Numba compiles with, turns them into the processor's instructions when they are
first needed: no compiler and no wheel for each machine.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

COUNT = ir.IntType(64)
_INT, _FLOAT, _BYTE = ir.IntType(32), ir.FloatType(), ir.IntType(8)
_FLOAT_BYTES = 4
"""Bytes of a 32-bit number, which its addresses are multiples of."""
_PERMUTE = {8: "llvm.x86.avx2.permps", 16: "llvm.x86.avx512.permvar.sf.512"}
"""The instruction that looks up each index of a vector in a vector of as many floats."""
_GATHER = {8: "llvm.x86.avx2.gather.d.ps.256", 16: "llvm.x86.avx512.mask.gather.dps.512"}
"""The instruction that reads floats at several positions of an array."""
_BLEND = "llvm.x86.avx.blendv.ps.256"
"""The instruction of AVX that takes one of two floats by the sign of a third."""

Number = Any
"""A number, an address or a vector in the function that is written."""


class VectorFunction:
    """A vector function is written instruction by instruction, with loops.

    Args:
        module: The module that it is added to.
        name: Its name.
        pointers: How many arguments are addresses of 32-bit numbers; they do not overlap.
        counts: How many more are 64-bit integers.
        lanes: The numbers of a vector: 8 (AVX2) or 16 (AVX-512).
    """

    def __init__(self, module: Any, name: str, pointers: int, counts: int, lanes: int) -> None:
        self.lanes = lanes
        arguments = [_FLOAT.as_pointer()] * pointers + [COUNT] * counts
        self._function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), name)
        for argument in self._function.args[:pointers]:
            argument.add_attribute("noalias")
        self.arguments: Sequence[Number] = self._function.args
        self.builder = ir.IRBuilder(self._function.append_basic_block("entry"))
        self._floats, self._ints = ir.VectorType(_FLOAT, lanes), ir.VectorType(_INT, lanes)
        self._permute = self._instruction(_PERMUTE[lanes], [self._floats, self._ints])
        if lanes == 8:
            self._blend = self._instruction(_BLEND, [self._floats] * 3)

    def loop(
        self,
        count: Number,
        body: Callable[[Number, list[Number]], list[Number]],
        start: Sequence[Number] = (),
    ) -> list[Number]:
        """Write a loop and return the numbers that it carried after its last turn.

        Args:
            count: How many turns, at least one.
            body: Writes a turn from its index and the carried numbers, which it returns anew.
            start: The carried numbers before the first turn.
        """
        builder, before = self.builder, self.builder.block
        head = self._function.append_basic_block("turn")
        after = self._function.append_basic_block("after")
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(COUNT)
        index.add_incoming(constant(0), before)
        carried = [builder.phi(number.type) for number in start]
        results = body(index, list(carried))
        following = builder.add(index, constant(1))
        for number, first, result in zip(carried, start, results, strict=True):
            number.add_incoming(first, before)
            number.add_incoming(result, builder.block)
        index.add_incoming(following, builder.block)
        builder.cbranch(builder.icmp_signed("<", following, count), head, after)
        builder.position_at_end(after)
        return results

    def sum(self, *terms: Number) -> Number:
        """Write the sum of integers."""
        total = terms[0]
        for term in terms[1:]:
            total = self.builder.add(total, term)
        return total

    def times(self, *factors: Number) -> Number:
        """Write the product of integers."""
        product = factors[0]
        for factor in factors[1:]:
            product = self.builder.mul(product, factor)
        return product

    def difference(self, one: Number, other: Number) -> Number:
        """Write the difference of two integers."""
        return self.builder.sub(one, other)

    def quotient(self, one: Number, other: Number) -> Number:
        """Write the quotient of two positive integers, rounded down."""
        return self.builder.udiv(one, other)

    def remainder(self, one: Number, other: Number) -> Number:
        """Write the rest of the division of two positive integers."""
        return self.builder.urem(one, other)

    def smaller(self, one: Number, other: Number) -> Number:
        """Write the smaller one of two integers."""
        return self.builder.select(self.builder.icmp_signed("<", one, other), one, other)

    def prefetch(self, address: Number, count: Number) -> None:
        """Write a request for numbers that are read soon; it may lie behind the last."""
        pointer = self.builder.bitcast(self.offset(address, count), _BYTE.as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), _INT, _INT, _INT])
        call = self._declared("llvm.prefetch.p0", kind)
        # For reading, into all levels of the cache, of data.
        self.builder.call(call, [pointer, *(ir.Constant(_INT, number) for number in (0, 3, 1))])

    def offset(self, address: Number, count: Number) -> Number:
        """Write the address of a later number."""
        return self.builder.gep(address, [count])

    def load(self, address: Number, count: Number) -> Number:
        """Write the reading of a vector of floats."""
        return self._load(address, count, self._floats)

    def load_words(self, address: Number, count: Number) -> Number:
        """Write the reading of a vector of 32-bit words."""
        return self._load(address, count, self._ints)

    def store(self, vector: Number, address: Number, count: Number) -> None:
        """Write a vector of floats to memory."""
        pointer = self.builder.bitcast(self.offset(address, count), self._floats.as_pointer())
        self.builder.store(vector, pointer).align = _FLOAT_BYTES

    def broadcast(self, address: Number, count: Number) -> Number:
        """Write the reading of a float into all lanes of a vector."""
        undefined = ir.Constant(self._floats, ir.Undefined)
        number = self.builder.load(self.offset(address, count))
        vector = self.builder.insert_element(undefined, number, ir.Constant(_INT, 0))
        lanes = ir.Constant(self._ints, [0] * self.lanes)
        return self.builder.shuffle_vector(vector, undefined, lanes)

    def multiply_add(self, one: Number, other: Number, term: Number) -> Number:
        """Write `one * other + term` of vectors, rounded once."""
        instruction = self._instruction(f"llvm.fma.v{self.lanes}f32", [self._floats] * 3)
        return self.builder.call(instruction, [one, other, term])

    def zero(self) -> Number:
        """Return a vector of zeros."""
        return ir.Constant(self._floats, [0.0] * self.lanes)

    def look_up(self, table: Sequence[Number], words: Number, shift: int) -> Number:
        """Write the entries of a table at an index within each word.

        Args:
            table: One vector of `lanes` entries, or two of 8, whose entries repeat where the
                index has fewer bits than they have entries for.
            words: A vector of words.
            shift: The index's first bit in a word.
        """
        index = self.builder.lshr(words, self._each(shift)) if shift else words
        entries = self.builder.call(self._permute, [table[0], index])
        if len(table) == 1:
            return entries
        upper = self.builder.call(self._permute, [table[1], index])
        # The index's fourth bit becomes the sign.
        sign = self.builder.shl(words, self._each(28 - shift)) if shift < 28 else words
        sign = self.builder.bitcast(sign, self._floats)
        return self.builder.call(self._blend, [entries, upper, sign])

    def gather(self, address: Number, words: Number, shift: int, bits: int) -> Number:
        """Write the reading of an array's numbers at an index within each word.

        Args:
            address: The array.
            words: A vector of words.
            shift: The index's first bit in a word.
            bits: The bits of the index.
        """
        index = self.builder.lshr(words, self._each(shift)) if shift else words
        index = self.builder.and_(index, self._each((1 << bits) - 1))
        array = self.builder.bitcast(address, _BYTE.as_pointer())
        flag = ir.IntType(1)
        if self.lanes == 16:
            all_lanes: Number = ir.Constant(ir.VectorType(flag, 16), [1] * 16)
            size = ir.Constant(_INT, _FLOAT_BYTES)
        else:
            all_lanes = self.builder.bitcast(self._each(-1), self._floats)
            size = ir.Constant(_BYTE, _FLOAT_BYTES)
        before = ir.Constant(self._floats, ir.Undefined)
        arguments = [before, array, index, all_lanes, size]
        instruction = self._instruction(_GATHER[self.lanes], [each.type for each in arguments])
        return self.builder.call(instruction, arguments)

    def end(self) -> None:
        """Write the function's end."""
        self.builder.ret_void()

    def _load(self, address: Number, count: Number, kind: Any) -> Number:
        pointer = self.builder.bitcast(self.offset(address, count), kind.as_pointer())
        vector = self.builder.load(pointer)
        vector.align = _FLOAT_BYTES
        return vector

    def _each(self, number: int) -> Number:
        return ir.Constant(self._ints, [number] * self.lanes)

    def _instruction(self, name: str, arguments: list[Any]) -> Any:
        return self._declared(name, ir.FunctionType(self._floats, arguments))

    def _declared(self, name: str, kind: Any) -> Any:
        module = self._function.module
        return module.globals.get(name) or ir.Function(module, kind, name)


def constant(number: int) -> Number:
    """Return a 64-bit integer."""
    return ir.Constant(COUNT, number)
