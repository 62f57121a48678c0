"""Export to C99 source in integers: no float, no malloc, packed weights."""
