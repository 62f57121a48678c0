"""Turn a model whose weights and activations are on grids into integer arithmetic."""
