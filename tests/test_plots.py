"""What a picture shows can be read without the code."""

import re

import pytest
import torch
from helpers import metrics_of, run_here

from support.plots import save_misclassified


@pytest.mark.parametrize("epochs", ["1", "3"])
def test_the_plot_can_be_read_without_the_code(data_dir, tmp_path, monkeypatch, epochs):
    from matplotlib.figure import Figure

    figures = []
    savefig = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (figures.append(self), savefig(self, *a, **k))
    )
    run_here(data_dir, tmp_path, "--epochs", epochs)
    figure = figures[-1]
    history = metrics_of(tmp_path)["history"]
    assert "LeNet-5" in figure.get_suptitle()
    assert f"{history[-1]['test_accuracy']:.2%}" in figure.get_suptitle()
    panels = {ax.get_title(): ax for ax in figure.axes}
    assert len(panels) == 4
    for quantity in ("loss", "accuracy"):
        trn, tst = panels[f"training {quantity}"], panels[f"test {quantity}"]
        # Accuracies can be compared at a glance; each loss fills its panel, so that a rise is seen.
        assert (trn.get_ylim() == tst.get_ylim()) == (quantity == "accuracy")
        for ax, split in ((trn, "train"), (tst, "test")):
            assert ax.get_xlabel() == "epoch"
            assert quantity in ax.get_ylabel()
            left, right = ax.get_xlim()
            shown = [tick for tick in ax.get_xticks() if left <= tick <= right]
            assert shown
            assert all(tick == round(tick) for tick in shown)
            drawn = ax.lines[0].get_ydata() / (100 if quantity == "accuracy" else 1)
            assert list(drawn) == pytest.approx([e[f"{split}_{quantity}"] for e in history])


def test_no_more_than_100_misclassified_images_are_drawn_the_surest_first(tmp_path, monkeypatch):
    titles = []
    from matplotlib.axes import Axes

    monkeypatch.setattr(Axes, "text", lambda self, x, y, title, **_: titles.append(title))
    probabilities = torch.full((150, 10), 0.01)
    probabilities[range(150), 3] = torch.linspace(0.2, 0.9, 150)
    images = torch.zeros(150, 1, 28, 28, dtype=torch.uint8)
    save_misclassified(tmp_path / "m.png", "x", images, torch.full((150,), 8), probabilities)
    assert len(titles) == 100
    shares = [int(re.search(r"(\d+)%", title)[1]) for title in titles]
    assert shares[0] == 90
    assert shares == sorted(shares, reverse=True)
    assert titles[0].startswith("8→3")
