"""Compile the kernels for this machine's processor, once in a process, where it has AVX2."""

import ctypes
import functools
from typing import Any, NamedTuple

from quantal.runtime._layout import BUNDLE, Layout

_POINTER, _COUNT = ctypes.c_void_p, ctypes.c_int64
_PRODUCT = ctypes.CFUNCTYPE(None, *[_POINTER] * 5, *[_COUNT] * 5)
_DECODING = ctypes.CFUNCTYPE(None, *[_POINTER] * 3, *[_COUNT] * 3)
_LANES_OF_FEATURE = {"avx512f": 16, "avx2": 8}
"""The 32-bit numbers of a vector, by the feature of the processor: the longest first."""
_SPEED_LEVEL = 2
"""LLVM's level of optimization: the loops are written as they shall be."""


class Kernels(NamedTuple):
    """The kernels for one number of tiles; see `_kernels` for their arguments.

    Calling them releases Python's lock, so threads run them side by side.
    """

    product: Any
    decoding: Any


@functools.cache
def lanes() -> int:
    """Return how many lanes this processor's vectors have; 0 where the kernels cannot run."""
    try:
        from llvmlite import binding

        features = binding.get_host_cpu_features()
    # An unknown processor is a RuntimeError of llvmlite's.
    except (ImportError, OSError, RuntimeError):
        return 0
    return next((n for name, n in _LANES_OF_FEATURE.items() if features.get(name)), 0)


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
    return {
        tiles: Kernels(
            _PRODUCT(engine.get_function_address(f"product_{tiles}")),
            _DECODING(engine.get_function_address(f"decoding_{tiles}")),
        )
        for tiles in (BUNDLE, 1)
    }


_ENGINES: list[Any] = []
"""Their machine code lives as long as they do."""
