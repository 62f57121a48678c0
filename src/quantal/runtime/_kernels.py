"""Write all kernels of a layout: products with packed codes by tables, and by blocks of samples."""

from typing import Any

from quantal.runtime._block_kernels import write_block_product, write_decoded_product
from quantal.runtime._layout import BUNDLE, Layout
from quantal.runtime._table_kernel import write_product


def write_all(module: Any, layout: Layout) -> None:
    """Write the kernels for whole bundles, and for the tiles that are left."""
    for tiles in (BUNDLE, 1):
        if not layout.has_tables:
            write_decoded_product(module, f"decoded_product_{tiles}", layout, tiles)
            continue
        write_product(module, f"product_{tiles}", layout, tiles)
        if layout.has_blocks:
            write_block_product(module, f"block_product_{tiles}", layout, tiles)
