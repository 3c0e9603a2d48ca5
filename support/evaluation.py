"""What --evaluate tells about a trained network: loss, accuracy, confusion matrix, pictures."""

import json
import zlib
from pathlib import Path

import torch
from torch.nn import functional

from dataset import MNIST
from support.errors import printable
from support.plots import draw_confusions, draw_misclassified, save_figure
from support.provenance import fingerprint


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
    path: Path,
    checkpoint: dict,
    tst_path: Path,
    tst_set: MNIST,
    logits: torch.Tensor,
    results_dir: Path,
    as_json: bool,
) -> None:
    """Print how a network classifies the test set, and draw its confusions and errors.

    Args:
        path, checkpoint: where the network was loaded from, and what stands there.
        tst_path, tst_set: the test set: where it lies, and its `images` and `labels`.
        logits: of each image, float32 [N, 10], on the CPU.
        as_json: print one JSON object instead of sentences and a table.
    """
    labels = tst_set.labels
    # How often each true digit (row) was predicted as each digit (column): int64 [10, 10].
    counts = torch.bincount(10 * labels + logits.argmax(dim=1), minlength=100).view(10, 10)
    loss = functional.cross_entropy(logits, labels).item()
    accuracy = int(counts.trace()) / len(labels)
    known = checkpoint.get("data", {}).get("test")  # none, if the run watched other images
    differs = known is not None and known != fingerprint(tst_set)
    pictures = results_dir / "plots" / "evaluation"  # apart from those of runs
    name = path.stem
    if path.parent.resolve() != (results_dir / "checkpoints").resolve():
        # A network from elsewhere may have the name of one of these.
        name += f"-{zlib.crc32(str(path.resolve()).encode()):08x}"
    confusion_path = pictures / f"{name}_confusion.png"
    misclassified_path = pictures / f"{name}_misclassified.png"
    title = f"{path.name}: {accuracy:.2%} of the test set"
    save_figure(draw_confusions(title, {"": counts.numpy()}), confusion_path)
    misclassified = draw_misclassified(path.name, tst_set.images, labels, logits.softmax(dim=1))
    save_figure(misclassified, misclassified_path)
    if as_json:
        result = {
            "checkpoint": str(path),
            "data": str(tst_path),
            "tested_in_training": None if known is None else not differs,
            "loss": loss,
            "accuracy": accuracy,
            "confusion": counts.tolist(),
        }
        print(json.dumps(result))
        return
    note = " (not those that were tested while it trained)" if differs else ""
    print(printable(f"{path}, on {len(labels):,} test images of {tst_path}{note}:"))
    wrong = len(labels) - int(counts.trace())
    print(f"loss {loss:.4f}, accuracy {accuracy:.2%} ({wrong:,} misclassified)\n")
    print(confusion_table(counts))
    print("", printable(str(confusion_path)), printable(str(misclassified_path)), sep="\n")
