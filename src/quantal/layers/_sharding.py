"""PyTorch may shard a model: it puts other tensors in the place of a variable's own."""

from collections.abc import Iterable

from quantal._core.keras_internals.calls import called_layer
from quantal._core.keras_internals.scopes import is_stateless
from quantal._core.parameter import Parameter
from quantal._core.tensors.distributed import may_be_sharded


def refuse_sharded(parameters: Iterable[Parameter]) -> None:
    """Refuse to train parameters in a model that has other tensors than its variables.

    FullyShardedDataParallel and `fully_shard` put tensors of their own into a module, and
    optimizers move these. Keras computes with those of its variables, which would stay.
    """
    if not may_be_sharded() or is_stateless():
        return
    model = called_layer()
    if model is None:
        return
    tensors = model.torch_params
    for parameter in parameters:
        latent = parameter.latent
        if latent.path in tensors and getattr(tensors, latent.path, None) is not latent.value:
            raise RuntimeError(
                f"{latent.path!r} of the model {model.name!r} is another tensor than that of "
                "its variable: FullyShardedDataParallel or fully_shard has put it there. "
                "Expected the variable's own, with which Keras computes: no step would move "
                "it. Wrap the model in torch.nn.parallel.DistributedDataParallel."
            )
