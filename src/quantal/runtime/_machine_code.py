"""Compile the kernels for this machine's processor, once in a process, where it has AVX2."""

import ctypes
import functools
from typing import Any, NamedTuple

from quantal.runtime._layout import BUNDLE, Layout

_POINTER, _COUNT = ctypes.c_void_p, ctypes.c_int64
_PRODUCT = ctypes.CFUNCTYPE(None, *[_POINTER] * 5, *[_COUNT] * 7)
_DECODED_PRODUCT = ctypes.CFUNCTYPE(None, *[_POINTER] * 5, *[_COUNT] * 7)
_BLOCK_PRODUCT = ctypes.CFUNCTYPE(None, *[_POINTER] * 4, *[_COUNT] * 7)
_LANES_OF_FEATURES = {("avx512f", "fma"): 16, ("avx2", "fma"): 8}
"""The 32-bit numbers of a vector, by the features of the processor: the longest first."""
_SPEED_LEVEL = 2
"""LLVM's level of optimization: the loops are written as they shall be."""


class Kernels(NamedTuple):
    """The kernels for one number of tiles.

    `_table_kernel` and `_block_kernels` say what their arguments are.

    Calling them releases Python's lock, so threads run them side by side.

    Attributes:
        product: The product by tables; None for long lists.
        block_product: The product with blocks of samples; None where tables are always faster, and
            for long lists.
        decoded_product: The same for long lists, which takes a scratch, too; else None.
    """

    product: Any
    block_product: Any
    decoded_product: Any


@functools.cache
def lanes() -> int:
    """Return how many lanes this processor's vectors have; 0 where the kernels cannot run."""
    try:
        from llvmlite import binding

        features = binding.get_host_cpu_features()
    # An unknown processor is a RuntimeError of llvmlite's.
    except (ImportError, OSError, RuntimeError):
        return 0
    return next((n for names, n in _LANES_OF_FEATURES.items() if all(map(features.get, names))), 0)


@functools.cache
def kernels(layout: Layout) -> dict[int, Kernels]:
    """Return the compiled kernels of a layout by the number of tiles in a bundle."""
    from llvmlite import binding, ir

    from quantal.runtime._kernels import write_all

    module = ir.Module()
    write_all(module, layout)
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(),
        features=binding.get_host_cpu_features().flatten(),
        opt=_SPEED_LEVEL,
        jit=True,
    )
    engine = binding.create_mcjit_compiler(binding.parse_assembly(str(module)), machine)
    engine.finalize_object()
    _ENGINES.append(engine)

    def function(kind: Any, name: str) -> Any:
        address = engine.get_function_address(name)
        return kind(address) if address else None

    return {
        tiles: Kernels(
            function(_PRODUCT, f"product_{tiles}"),
            function(_BLOCK_PRODUCT, f"block_product_{tiles}"),
            function(_DECODED_PRODUCT, f"decoded_product_{tiles}"),
        )
        for tiles in (BUNDLE, 1)
    }


_ENGINES: list[Any] = []
"""Their machine code lives as long as they do."""
