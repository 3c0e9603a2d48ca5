"""What --evaluate tells about a trained network: loss, accuracy, confusion matrix, pictures."""

from pathlib import Path

import torch

from support.plots import save_confusion, save_misclassified


def count_confusions(labels: torch.Tensor, digits: torch.Tensor) -> torch.Tensor:
    """Return how often each true digit (row) was predicted as each digit (column), int64."""
    return torch.bincount(10 * labels + digits, minlength=100).view(10, 10)


def confusion_table(counts: torch.Tensor) -> str:
    """Return the confusion matrix as text, with the recall of each row and the precision of each
    column: which share of the sevens was predicted as 7, and which share of those predicted as 7
    are sevens."""

    def shares(totals: torch.Tensor) -> list[str]:
        pairs = zip(counts.diagonal().tolist(), totals.tolist(), strict=True)
        return [f"{correct / total:.2%}" if total else "-" for correct, total in pairs]

    lines = [["true \\ predicted", *map(str, range(10)), "recall"]]
    for digit, (row, recall) in enumerate(
        zip(counts.tolist(), shares(counts.sum(dim=1)), strict=True)
    ):
        lines.append([str(digit), *(str(count or ".") for count in row), recall])
    lines.append(["precision", *shares(counts.sum(dim=0)), ""])
    return "\n".join(
        f"{first:>16}" + "".join(f"{cell:>8}" for cell in cells) for first, *cells in lines
    )


def show_evaluation(
    checkpoint: Path,
    plots: Path,
    images: torch.Tensor,
    labels: torch.Tensor,
    logits: torch.Tensor,
    loss: float,
    accuracy: float,
) -> None:
    """Print how a network classifies the test set, and draw its confusions and errors.

    Args:
        plots: the folder to draw into.
        images: uint8 [N, 1, 28, 28], on the CPU as all tensors here.
        labels: int64 [N].
        logits: float32 [N, 10].
        loss: the average loss per sample.
        accuracy: 0 to 1.
    """
    counts = count_confusions(labels, logits.argmax(dim=1))
    wrong = len(labels) - int(counts.trace())
    print(f"{checkpoint}, on {len(labels):,} test images:")
    print(f"loss {loss:.4f}, accuracy {accuracy:.2%} ({wrong:,} misclassified)\n")
    print(confusion_table(counts))
    confusion_path = plots / f"{checkpoint.stem}_confusion.png"
    misclassified_path = plots / f"{checkpoint.stem}_misclassified.png"
    save_confusion(confusion_path, f"{checkpoint.name}: {accuracy:.2%} of the test set", counts)
    save_misclassified(misclassified_path, checkpoint.name, images, labels, logits.softmax(dim=1))
    print(f"\n{confusion_path}\n{misclassified_path}")
