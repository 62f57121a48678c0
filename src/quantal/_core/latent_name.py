"""A latent is named by the weight that it stands for: `kernel_latent` by `kernel`."""

import keras

LATENT_SUFFIX = "_latent"
"""The end of the name of every latent: it is not the weight that meets the data."""


def weight_path(variable: keras.Variable) -> str:
    """Return the path of the weight that a variable stands for; its own, where it is no latent."""
    return str(variable.path).removesuffix(LATENT_SUFFIX)


def weight_name(variable: keras.Variable) -> str:
    """Return the name of the weight that a variable stands for; its own, where it is no latent."""
    return str(variable.name).removesuffix(LATENT_SUFFIX)


def paths_in_layouts(latent: keras.Variable) -> list[str]:
    """Return the paths under which a layout map may know a latent: its weight's, and its own.

    A layer creates its kernel under the first, and users read the second from a built model.
    """
    path = weight_path(latent)
    return [path, f"{path}{LATENT_SUFFIX}"]
