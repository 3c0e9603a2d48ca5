"""The Muon optimizer: SGD with momentum and orthogonalized steps (Jordan et al. 2024)."""

from collections.abc import Callable, Iterable

import torch
from torch import nn


class Muon(torch.optim.Optimizer):
    """SGD with Nesterov momentum whose step is orthogonalized, layer by layer.

    A gradient lies mostly in the few directions that are steepest; an orthogonal step changes a
    layer by about the same amount in every direction (Jordan et al. 2024: Muon). Each parameter
    counts as a matrix with one row per output: a convolution as [channels, rest], a bias as one
    column. Weight decay is decoupled from the gradient (Loshchilov, Hutter 2019: AdamW).
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(  # type: ignore[override]  # torch says float, and returns tensors
        self, closure: Callable[[], torch.Tensor] | None = None
    ) -> torch.Tensor | None:
        """Take one step. `closure`, as with torch's optimizers, may compute the loss and its
        gradients first; what it returns is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            for parameter in group["params"]:
                if parameter.grad is None:  # frozen or unused
                    continue
                state = self.state[parameter]
                if not state:
                    state["average"] = torch.zeros_like(parameter)
                average = state["average"].lerp_(parameter.grad, 1 - momentum)
                nesterov = parameter.grad.lerp(average, momentum)
                matrix = torch.atleast_1d(nesterov)  # a scalar counts as 1x1
                update = orthogonalize(matrix.reshape(len(matrix), -1))
                rows, columns = update.shape
                # Scaled so that outputs change by about as much, whatever the shape of the layer.
                update *= max(1, rows / columns) ** 0.5
                parameter.mul_(1 - lr * group["weight_decay"])
                parameter.sub_(lr * update.view_as(parameter))
        return loss


def orthogonalize(matrix: torch.Tensor) -> torch.Tensor:
    """Approximate the orthogonal matrix nearest to `matrix`, float32 [M, N].

    The singular vectors stay; the singular values, but for tiny ones, become 0.7 to 1.2. Five
    steps of the Newton-Schulz iteration, which needs only products (Jordan et al. 2024).
    """
    # Theirs: these raise small singular values fastest.
    a, b, c = 3.4445, -4.7750, 2.0315
    rows, columns = matrix.shape
    x = matrix if rows <= columns else matrix.T
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        square = x @ x.T
        # a x + (b square + c square square) x; addmm computes a product and a sum in one call
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x if rows <= columns else x.T
