"""Export to C99 source: weights are packed codes, decoded where they are used."""
