"""A network with ternary weights is trained in two processes by PyTorch's DistributedDataParallel.

`python examples/devices_torch.py` starts them on this machine. The loop is PyTorch's own, as in
Keras's guide: its `fit` trains in one process.
"""

import os

os.environ["KERAS_BACKEND"] = "torch"
PROCESSES, PORT = 2, "12322"


def train(index):
    """Train in one process; all of them run the same program."""
    import keras
    import numpy as np
    import torch

    import quantal

    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{PORT}", rank=index, world_size=PROCESSES
    )
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((16,)),
            quantal.Discrete(keras.layers.Dense(32, "relu"), "ternary", scale="learned"),
            keras.layers.Dense(1),
        ]
    )
    replica = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.Adam([v.value for v in model.trainable_variables], 0.01)
    random = np.random.default_rng(0)
    x = torch.from_numpy(random.normal(size=(512, 16)).astype("float32"))
    y = x[:, :4].abs().sum(1, keepdim=True)
    rows = np.arange(512).reshape(-1, PROCESSES, 64 // PROCESSES)[:, index]
    for _ in range(20):
        for batch in rows:
            loss = ((replica(x[batch], training=True) - y[batch]) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    # In all processes, or in the first alone: that one writes, and the others wait.
    size = quantal.save(model, os.path.join(os.environ.get("FOLDER", "."), "torch.quantal"))
    if index == 0:
        print(f"{PROCESSES} processes: loss {loss.item():.4f}, {size} bytes")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    import torch

    torch.multiprocessing.spawn(train, nprocs=PROCESSES)
