"""Tensors of several devices, replicas or processes, as one program sees them.

Each framework has its own way to share tensors and gradients. Whatever reads or shares them asks
here, as it asks `backend` for all else that a framework alone can do.
"""

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.processes import count
from quantal._core.tensors.backend import Function, custom_gradient
from quantal._core.types import Tensor


def whole_array(tensor: Any) -> NDArray[Any]:
    """Return the numbers of a tensor or variable as a NumPy array, whole on every process.

    JAX spreads an array over the devices of several processes, none of which has all of it
    (`keras.distribution.ModelParallel`). Then all processes have to ask for it together. Whatever
    reads numbers of variables asks here.

    Args:
        tensor: A tensor, a variable, or what `keras.ops.convert_to_numpy` accepts.
    """
    return ops.convert_to_numpy(whole(tensor))


def whole(tensor: Any) -> Any:
    """Return a tensor with all its numbers on every process; nearly always that is the tensor.

    Args:
        tensor: A tensor or a variable. Within a compiler's trace it is returned as it is.
    """
    if keras.config.backend() != "jax":
        return tensor
    import jax

    value = tensor.value if isinstance(tensor, keras.Variable) else tensor
    if not isinstance(value, jax.Array) or isinstance(value, jax.core.Tracer):
        return tensor
    if value.is_fully_addressable or value.is_fully_replicated:
        return tensor
    sharding = value.sharding
    if not isinstance(sharding, jax.sharding.NamedSharding):
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(value, tiled=True)
    everywhere = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
    return jax.jit(_same, out_shardings=everywhere)(value)


def _same(tensor: Tensor) -> Tensor:
    return tensor


def spread(batch: Any) -> Any:
    """Return a batch as `fit` gives it to a model: over the devices of all processes, if several.

    Args:
        batch: A structure of tensors or arrays, samples first: this process's part of the batch.
    """
    distribution = keras.distribution.distribution()
    if distribution is None or count() == 1:
        return batch
    import jax

    def placed(array: Any) -> Tensor:
        layout = distribution.get_data_layout(array.shape).backend_layout
        return jax.make_array_from_process_local_data(layout, ops.convert_to_numpy(array))

    return keras.tree.map_structure(placed, batch, none_is_leaf=False)


def all_samples(data: Any) -> Any:
    """Return the samples that the processes of a distribution have together, in each of them.

    Args:
        data: A structure of NumPy arrays, samples first: this process's part, as many samples as
            every other one has. All processes have to ask together.
    """
    if keras.distribution.distribution() is None or count() == 1:
        return data
    from jax.experimental import multihost_utils

    def gathered(array: Any) -> NDArray[Any]:
        return np.asarray(multihost_utils.process_allgather(array, tiled=True))

    return keras.tree.map_structure(gathered, data, none_is_leaf=False)


def with_mean_gradient(tensor: Tensor) -> Tensor:
    """Return the tensor, whose gradient becomes the mean of those of all replicas of the model.

    TensorFlow's strategies and PyTorch's DistributedDataParallel take the mean of the gradients to
    variables. A gradient that an estimator transforms by its sign or its size has to be that of the
    whole batch before it is transformed, as it is on one device; then all replicas give the same.
    JAX computes one program for all devices, whose gradients are those of the whole batch.
    """
    mean = _mean_over_replicas()
    if mean is None:
        return tensor

    @custom_gradient
    def same(x: Tensor) -> Any:
        def gradient(*arguments: Tensor, upstream: Tensor = None) -> Tensor:
            # Adding zeros makes TensorFlow's sparse gradients (of an Embedding) dense.
            return mean(ops.add(arguments[0] if upstream is None else upstream, ops.zeros_like(x)))

        return ops.add(x, ops.zeros_like(x)), gradient

    return same(tensor)


def _mean_over_replicas() -> Function | None:
    """Return the function that takes the mean over replicas; None where there is one model."""
    backend = keras.config.backend()
    if backend == "tensorflow":
        import tensorflow

        context = tensorflow.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return None
        return lambda tensor: context.all_reduce(tensorflow.distribute.ReduceOp.MEAN, tensor)
    if backend == "torch":
        return _mean_over_processes_in_torch()
    return None


def _mean_over_processes_in_torch() -> Function | None:
    """Return the function that takes the mean over the processes of the call's replicated model."""
    import torch

    if not torch.distributed.is_available():
        return None
    # A compiler sees it, too: it traces the module within the call of the one that replicates it.
    model = torch.nn.parallel.DistributedDataParallel._active_ddp_module
    if model is None or torch.distributed.get_world_size(model.process_group) == 1:
        return None

    def mean(tensor: Tensor) -> Tensor:
        total = tensor.detach().clone()
        torch.distributed.all_reduce(total, group=model.process_group)
        return total / torch.distributed.get_world_size(model.process_group)

    return mean


def may_be_sharded() -> bool:
    """Return whether processes of PyTorch compute together, and replicate no module now.

    Then FullyShardedDataParallel may have put other tensors into a model.
    """
    if keras.config.backend() != "torch":
        return False
    import torch

    if torch.compiler.is_compiling() or not torch.distributed.is_available():
        return False
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return False
    return torch.nn.parallel.DistributedDataParallel._active_ddp_module is None
