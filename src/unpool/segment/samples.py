"""Several passes of a network with dropout left on: what it predicts, and how sure it is."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from unpool import Progress


def dropout_layers(model: nn.Module) -> list[nn.Dropout]:
    """The layers with dropout, which evaluation turns off."""
    return [m for m in model.modules() if isinstance(m, nn.Dropout) and m.p > 0]


@torch.inference_mode()
def sample(
    model: nn.Module, x: Tensor, count: int, seed: int = 0, progress: "Progress | None" = None
) -> tuple[Tensor, Tensor]:
    """Average the probabilities of several passes with dropout, and say how far they differ.

    Args:
        model: in evaluation mode, and afterwards again.
        x: images (N, 3, H, W) made by `prepare`.
        count: of the passes.
        seed: of the dropout; the same seed gives the same result, and no other generator changes.
        progress: called after each pass.

    Returns:
        The mean probabilities, (N, K, H, W), and the variance of the probabilities over the passes,
        the mean over the classes, (N, 1, H, W); both float32, on the CPU.

    Kendall, Badrinarayanan, Cipolla 2015 (arXiv 1511.02680), section 3; the released
    `test_bayesian_segnet.py`.

    >>> net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Dropout(0.5)).eval()
    >>> mean, variance = sample(net, torch.ones(1, 3, 4, 4), count=3)
    >>> mean.shape, variance.shape
    (torch.Size([1, 2, 4, 4]), torch.Size([1, 1, 4, 4]))
    """
    layers = dropout_layers(model)
    mean = squares = torch.zeros(())
    with torch.random.fork_rng():
        # the same image has the same uncertainty
        torch.manual_seed(seed)
        # dropout alone: batch norm keeps its statistics
        for layer in layers:
            layer.train()
        try:
            for n in range(1, count + 1):
                p = model(x).float().softmax(1).cpu()
                apart = p - mean  # Welford's updates: no difference of large numbers
                mean = mean + apart / n
                squares = squares + apart * (p - mean)
                if progress is not None:
                    progress(n, count, "sampling")
        finally:
            for layer in layers:
                layer.eval()
    return mean, (squares / count).mean(1, keepdim=True)
