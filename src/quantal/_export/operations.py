"""Count what a sample takes: additions, shifts, products, comparisons."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Operations:
    """Operations are counted for one sample; index arithmetic is not.

    Attributes:
        additions: Additions and subtractions.
        shifts: Shifts.
        products: Products.
        comparisons: Comparisons with thresholds and in pooling.
        words: Words of 32 signs that are multiplied by XNOR and counted.
        functions: Exponentials, roots and the like; and divisions.
    """

    additions: int = 0
    shifts: int = 0
    products: int = 0
    comparisons: int = 0
    words: int = 0
    functions: int = 0

    def __add__(self, other: "Operations") -> "Operations":
        sums = {
            field.name: getattr(self, field.name) + getattr(other, field.name)
            for field in dataclasses.fields(self)
        }
        return Operations(**sums)

    def __mul__(self, times: int) -> "Operations":
        names = (field.name for field in dataclasses.fields(self))
        return Operations(**{name: times * getattr(self, name) for name in names})

    def __str__(self) -> str:
        texts = {
            "additions": self.additions,
            "shifts": self.shifts,
            "products": self.products,
            "comparisons": self.comparisons,
            "XNORs of 32 signs": self.words,
            "functions": self.functions,
        }
        return ", ".join(f"{count:,} {name}" for name, count in texts.items() if count) or "nothing"
