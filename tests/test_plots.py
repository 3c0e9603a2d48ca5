"""What a picture shows can be read without the code, and its numbers are those of the run."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image

from support import plots
from support.plots import (
    draw_confusion,
    draw_curves,
    new_figure,
    save_confusion,
    save_digits,
    save_misclassified,
    save_run_plot,
)


@pytest.fixture
def saved(monkeypatch):
    """The figures that would have been written: drawing a thing is fast, a PNG of it is not."""
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path, **_: figures.append(figure))
    return figures


def make_history(*losses, watched="test"):
    """A run whose four numbers differ in every epoch."""
    return [
        {
            "train_loss": loss,
            "train_accuracy": 1 - loss / 2,
            f"{watched}_loss": loss + 0.5,
            f"{watched}_accuracy": 1 - loss / 4,
        }
        for loss in losses
    ]


def panels_of(figure):
    return {ax.get_title(): ax for ax in figure.axes}


def line_of(ax, number=0):
    return ax.lines[number].get_xydata().tolist()


# --- curves -----------------------------------------------------------------------------------


def test_the_four_panels_show_each_number_of_a_run_by_epoch(saved):
    save_run_plot("x.png", "lenet5", make_history(0.4, 0.2, 0.3), "test", epochs=3)
    panels = panels_of(saved[0])
    expected = {
        "training loss": [0.4, 0.2, 0.3],
        "test loss": [0.9, 0.7, 0.8],
        "training accuracy": [80, 90, 85],
        "test accuracy": [90, 95, 92.5],
    }
    assert list(panels) == list(expected)
    for title, values in expected.items():
        assert line_of(panels[title]) == [
            pytest.approx([epoch, value]) for epoch, value in enumerate(values, start=1)
        ]


def test_the_panels_name_their_axes_and_units(saved):
    save_run_plot("x.png", "lenet5", make_history(0.4, 0.2), "test", epochs=2)
    for title, ax in panels_of(saved[0]).items():
        assert ax.get_xlabel() == "epoch"
        assert ax.get_ylabel() == ("loss (cross-entropy)" if "loss" in title else "accuracy (%)")


def test_accuracies_share_their_axis_and_each_loss_fills_its_panel(saved):
    save_run_plot("x.png", "lenet5", make_history(0.4, 0.2), "test", epochs=2)
    limits = {title: ax.get_ylim() for title, ax in panels_of(saved[0]).items()}
    assert limits["training accuracy"] == limits["test accuracy"]
    assert limits["training loss"] != limits["test loss"]


@pytest.mark.parametrize("epochs", [1, 3, 100])
def test_the_axis_has_room_for_all_epochs_to_come_and_whole_numbers(saved, epochs):
    save_run_plot("x.png", "lenet5", make_history(0.4), "test", epochs)
    for ax in saved[0].axes:
        assert ax.get_xlim() == (0.5, epochs + 0.5)
        shown = [tick for tick in ax.get_xticks() if 0.5 <= tick <= epochs + 0.5]
        assert shown
        assert all(tick == round(tick) for tick in shown)


@pytest.mark.parametrize(
    ("losses", "watched", "title"),
    [
        ((0.4,), "test", "LeNet-5: test accuracy 90.00% after 1 epoch"),
        ((0.4, 0.2), "test", "LeNet-5: test accuracy 95.00% after 2 epochs"),
        ((0.4, 0.3), "val", "LeNet-5: validation accuracy 92.50% after 2 epochs"),
    ],
)
def test_the_title_of_a_run_tells_its_last_accuracy(saved, losses, watched, title):
    history = make_history(*losses, watched=watched)
    save_run_plot("x.png", "lenet5", history, watched, epochs=9)
    assert saved[0].get_suptitle() == title
    split = title.split()[1]
    assert list(panels_of(saved[0]))[1] == f"{split} loss"


@pytest.mark.parametrize(("epochs", "marker"), [(1, "o"), (20, "o"), (21, "None")])
def test_epochs_are_dots_until_they_are_too_many(epochs, marker):
    figure = draw_curves("", {"MLP": make_history(*[0.4] * epochs)}, "test", epochs)
    assert {ax.lines[0].get_marker() for ax in figure.axes} == {marker}
    assert {ax.lines[0].get_linestyle() for ax in figure.axes} == {"-"}


def test_every_network_has_one_color_wherever_it_is_drawn():
    run = make_history(0.4)
    both = draw_curves("", {"LeNet-5": run, "MLP": run}, "test", epochs=1)
    alone = draw_curves("", {"MLP": run}, "test", epochs=1)
    for beside, ax in zip(both.axes, alone.axes, strict=True):
        assert beside.lines[0].get_color() != beside.lines[1].get_color()
        assert beside.lines[1].get_color() == ax.lines[0].get_color()
        assert [line.get_label() for line in beside.lines] == ["LeNet-5", "MLP"]


def test_a_network_of_ones_own_is_drawn_under_its_key_and_in_a_color_of_its_own(saved):
    save_run_plot("x.png", "mynet", make_history(0.4), "test", epochs=1)
    assert saved[0].get_suptitle() == "mynet: test accuracy 90.00% after 1 epoch"
    run = make_history(0.4)
    figure = draw_curves("", {"mynet": run, "LeNet-5": run, "MLP": run, "n": run}, "test", 1)
    for ax in figure.axes:
        colors = [to_hex(line.get_color()) for line in ax.lines]
        assert len(set(colors)) == 4


# --- confusions and digits --------------------------------------------------------------------


def test_a_confusion_matrix_shows_every_count_and_colors_only_the_errors():
    counts = np.diag(np.arange(90, 100))
    counts[3, 5], counts[7, 2] = 4, 1
    ax = new_figure(6, 6, "").subplots()
    draw_confusion(ax, counts, "{:.0f}")
    texts = {(text.get_position()): text.get_text() for text in ax.texts}
    assert texts == {**{(i, i): str(90 + i) for i in range(10)}, (5, 3): "4", (2, 7): "1"}
    drawn = ax.images[0].get_array()
    assert np.ma.getmaskarray(drawn).tolist() == np.eye(10, dtype=bool).tolist()
    assert (drawn[3, 5], drawn[7, 2], drawn.sum()) == (4, 1, 5)
    assert ax.images[0].get_clim() == (0, 4)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")


def test_a_dark_cell_of_a_confusion_matrix_has_a_bright_number():
    counts = np.zeros((10, 10))
    counts[0, 1], counts[0, 2] = 7, 6
    ax = new_figure(6, 6, "").subplots()
    draw_confusion(ax, counts, "{:.1f}", darkest=10)
    assert {text.get_text(): text.get_color() for text in ax.texts} == {
        "7.0": "white",
        "6.0": "black",
    }
    assert ax.images[0].get_clim() == (0, 10)


def test_a_network_without_errors_has_a_confusion_matrix_too(saved):
    save_confusion("x.png", "perfect", 5 * torch.eye(10, dtype=torch.int64))
    [ax] = saved[0].axes
    assert [text.get_text() for text in ax.texts] == ["5"] * 10
    assert saved[0].get_suptitle() == "perfect"


def test_the_surest_of_the_misclassified_images_are_drawn_first_and_no_more_than_100(saved):
    confidence = torch.linspace(0.2, 0.9, 150)
    probabilities = torch.zeros(150, 10)
    probabilities[:, 3] = confidence  # all are taken for a 3,
    labels = torch.full((150,), 8)
    labels[149] = 3  # which one of them is
    images = torch.arange(150, dtype=torch.uint8).view(150, 1, 1, 1).expand(150, 1, 28, 28)
    save_misclassified("x.png", "lenet5.pt", images, labels, probabilities)
    [ax] = saved[0].axes
    expected = range(148, 48, -1)
    assert [text.get_text() for text in ax.texts] == [f"8→3  {confidence[i]:.0%}" for i in expected]
    assert (
        saved[0]
        .get_suptitle()
        .startswith("lenet5.pt: 100 of 149 misclassified test images, most confident first")
    )
    sheet = ax.images[0].get_array()
    assert sorted(set(sheet.flatten().tolist())) == [0, *sorted(expected)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [0, 1, 12])
def test_digits_are_drawn_ten_in_a_row_each_below_its_text(saved, count):
    images = torch.randint(1, 256, (count, 1, 28, 28), dtype=torch.uint8)
    save_digits("x.png", "digits", images, [f"no. {number}" for number in range(count)])
    [ax] = saved[0].axes
    sheet = ax.images[0].get_array()
    boxes = []
    for number, text in enumerate(ax.texts):
        assert text.get_text() == f"no. {number}"
        center, bottom = text.get_position()
        left, top = int(center) - 14, bottom + 2
        assert np.array_equal(sheet[top : top + 28, left : left + 28], images[number, 0])
        assert bottom >= 8  # there is room for it
        assert not sheet[bottom - 8 : bottom + 1, left : left + 28].any()
        boxes.append((top // 28, left))
    assert (sheet > 0).sum() == count * 28 * 28  # none covers another
    rows = [row for row, _ in boxes]
    assert [rows.count(row) for row in sorted(set(rows))] == {0: [], 1: [1], 12: [10, 2]}[count]
    assert boxes == sorted(boxes)


# --- the file ---------------------------------------------------------------------------------


def test_a_plot_is_a_png_of_the_size_that_was_asked(tmp_path):
    save_run_plot(tmp_path / "plots/x.png", "lenet5", make_history(0.4), "test", epochs=1)
    with Image.open(tmp_path / "plots/x.png") as image:
        assert (image.format, image.size) == ("PNG", (7.5 * 110, 6 * 110))
        assert len(image.convert("RGB").getcolors(maxcolors=100_000)) > 10
