"""Refuse what a Verilog module does not hold."""


def refusal(what: str) -> ValueError:
    """Return the error for a network that has something which no module holds."""
    return ValueError(
        f"The network has {what}, which a Verilog module does not hold. Export to '.c' with the "
        "target 'c_integer', which holds more, or convert the model with hls4ml."
    )
