"""Export to C99 source: weights as packed codes, decoded where they are used."""
