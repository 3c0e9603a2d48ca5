"""What a picture shows can be read without the code, and its numbers are those of the run."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import make_runs, span_of
from matplotlib.colors import to_hex
from PIL import Image

from support.plots import (
    draw_confusions,
    draw_curves,
    draw_digits,
    draw_misclassified,
    draw_run,
    new_figure,
    save_figure,
)


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
    """The four panels by title, without the unit."""
    return {ax.get_title().split(",")[0].split(" (")[0]: ax for ax in figure.axes}


def curve_of(ax, number=0):
    return ax.lines[number].get_xydata().tolist()


def ends_of(ax):
    """The text at the end of each curve, by color."""
    return {to_hex(text.get_color()): text.get_text() for text in ax.texts}


def histories_of(**rows):
    return {name: [run["history"] for run in runs] for name, runs in rows.items()}


# --- curves -----------------------------------------------------------------------------------


def test_the_four_panels_show_each_number_of_a_run_by_epoch_and_the_last_at_its_end():
    panels = panels_of(draw_run("lenet5", make_history(0.4, 0.2, 0.3), "test", epochs=3))
    expected = {
        "training loss": ([0.4, 0.2, 0.3], "0.3"),
        "test loss": ([0.9, 0.7, 0.8], "0.8"),
        "training accuracy": ([80, 90, 85], "85.00"),
        "test accuracy": ([90, 95, 92.5], "92.50"),
    }
    assert list(panels) == list(expected)
    for title, (values, last) in expected.items():
        assert curve_of(panels[title]) == [
            pytest.approx([epoch, value]) for epoch, value in enumerate(values, start=1)
        ]
        end = panels[title].texts[-1]
        assert (end.get_text(), end.xy) == (last, pytest.approx((3, values[-1])))


def test_training_and_test_have_the_same_scale_loss_a_logarithmic_one():
    figure = draw_run("lenet5", make_history(0.4, 0.2), "test", epochs=2)
    panels = panels_of(figure)
    for quantity, scale in (("loss", "log"), ("accuracy", "linear")):
        training, test = panels[f"training {quantity}"], panels[f"test {quantity}"]
        assert training.get_ylim() == test.get_ylim()
        assert training.get_yscale() == test.get_yscale() == scale
    form = panels["test loss"].yaxis.get_major_formatter()
    assert [form(loss, 0) for loss in (1e-5, 0.02, 3.0)] == ["0.00001", "0.02", "3"]


@pytest.mark.parametrize(
    ("losses", "epochs", "watched", "title"),
    [
        ((0.4,), 1, "test", "LeNet-5: test accuracy 90.00% after epoch 1 of 1"),
        ((0.4, 0.3), 9, "val", "LeNet-5: validation accuracy 92.50% after epoch 2 of 9"),
    ],
)
def test_the_title_of_a_run_tells_its_last_accuracy(losses, epochs, watched, title):
    figure = draw_run("lenet5", make_history(*losses, watched=watched), watched, epochs)
    assert figure.get_suptitle() == title
    assert list(panels_of(figure))[1] == f"{title.split()[1]} loss"


@pytest.mark.parametrize(("done", "dots"), [(1, [1]), (20, [*range(1, 21)]), (21, [21])])
def test_epochs_are_whole_numbers_and_dots_until_they_are_too_many(done, dots):
    figure = draw_run("mlp", make_history(*[0.4] * done), "test", epochs=100)
    for ax in figure.axes:
        low, high = ax.get_xlim()
        assert (low < 1, high > done) == (True, True)
        ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
        assert ticks
        assert all(tick == round(tick) for tick in ticks)
        [line] = ax.lines
        assert line.get_xdata()[line.get_markevery()].tolist() == dots


def test_accuracy_starts_where_later_epochs_can_be_told_apart_and_says_what_it_cut():
    accuracies = [0.114, 0.978, 0.985, 0.99, 0.991, 0.992]
    history = make_history(*(4 * (1 - accuracy) for accuracy in accuracies))  # training: 2 to 98.4%
    panels = panels_of(draw_run("lenet5", history, "test", 20))
    bottom, top = panels["test accuracy"].get_ylim()
    assert 96 < bottom < 97  # training accuracy is 97% in the third epoch
    assert 100 < top < 101
    lowest, last = panels["test accuracy"].texts
    assert (lowest.get_text(), lowest.xy) == ("min 11.40", (6, bottom))
    assert last.get_text() == "99.20"
    panels = panels_of(draw_run("lenet5", history[:2], "test", 20))
    assert panels["test accuracy"].get_ylim()[0] < 2
    assert [text.get_text() for text in panels["test accuracy"].texts] == ["97.80"]


def test_a_run_that_diverges_is_seen_to_the_end():
    history = make_history(0.2, 0.1, 0.1, 1.9, 1.8)
    history[-1]["train_loss"] = 1100
    panels = panels_of(draw_run("lenet5", history, "test", 20))
    for ax in panels.values():
        low, high = ax.get_ylim()
        assert all(low < y < high for _, y in curve_of(ax))
    assert panels["training loss"].texts[0].get_text() == "1100"


def test_losses_below_1e_4_leave_the_axis_and_their_end_says_so():
    history = make_history(0.4, 0.1)
    history[1] |= {"train_loss": 0.0000312, "test_loss": 0.2}
    panels = panels_of(draw_run("lenet5", history, "test", 2))
    low, high = panels["test loss"].get_ylim()
    assert 0.00005 < low < 0.0001
    assert 0.9 < high < 2
    [end] = panels["training loss"].texts
    assert (end.get_text(), end.xy[1]) == ("↓0.000031", low)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("epochs", [1, 3])
def test_a_perfect_network_can_be_drawn(tmp_path, epochs):
    perfect = {
        f"{split}_{q}": float(q == "accuracy")
        for split in ("train", "test")
        for q in ("loss", "accuracy")
    }
    figure = draw_run("lenet5", [perfect] * epochs, "test", epochs)
    save_figure(figure, tmp_path / "x.png")
    texts = [[text.get_text() for text in ax.texts] for ax in figure.axes]
    assert texts == [["↓0"], ["↓0"], ["100.00"], ["100.00"]]
    assert figure.axes[2].get_ylim()[0] < 99.9


def test_curves_of_many_runs_are_their_means_with_bands_of_one_deviation():
    rows = histories_of(A=make_runs((99, 0.1), epochs=4), B=make_runs((98, 0.3), epochs=4))
    figure = draw_curves("Two networks", rows, "test")
    for ax in figure.axes:
        first, second = ax.lines
        assert first.get_color() != second.get_color()
    ax = panels_of(figure)["test accuracy"]
    assert first.get_ydata().tolist() == pytest.approx([96, 97, 98, 99])
    assert second.get_ydata().tolist() == pytest.approx([95, 96, 97, 98])
    for deviation, band in zip((0.1, 0.3), ax.collections, strict=True):
        heights = [y for x, y in band.get_paths()[0].vertices if x == 4]
        assert max(heights) - min(heights) == pytest.approx(2 * deviation)
    assert ends_of(ax) == {to_hex(first.get_color()): "99.00", to_hex(second.get_color()): "98.00"}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["A", "B"]


def test_a_band_reaches_below_the_lowest_run_and_below_0_where_a_deviation_does():
    runs = make_runs(epochs=1)
    for run, loss in zip(runs, (0.001, 0.001, 0.4), strict=True):
        run["history"][0]["test_loss"] = loss
    panels = panels_of(draw_curves("", histories_of(A=runs), "test"))
    heights = panels["test loss"].collections[0].get_paths()[0].vertices[:, 1]
    mean, deviation = 0.134, 0.399 / 3**0.5  # two at 0.133 below the mean, one twice as far above
    assert [min(heights), max(heights)] == pytest.approx([mean - deviation, mean + deviation])


def test_the_ends_of_curves_that_meet_do_not_cover_each_other():
    rows = histories_of(A=make_runs((99, 0)), B=make_runs((98.99, 0)), C=make_runs((98.98, 0)))
    figure = draw_curves("", rows, "test")
    figure.draw_without_rendering()
    for ax in figure.axes:
        boxes = sorted(text.get_window_extent().intervaly.tolist() for text in ax.texts)
        assert len(boxes) == 3
        assert all(below[1] < above[0] + 1 for below, above in pairwise(boxes))


def test_the_epochs_without_augmentation_are_shaded():
    rows = histories_of(A=make_runs(epochs=9))
    for ax in draw_curves("", rows, "test", no_aug_epochs=3).axes:
        [shade] = ax.patches
        assert span_of(shade) == (6.5, ax.get_xlim()[1])
    assert not any(ax.patches for ax in draw_curves("", rows, "test").axes)


def test_every_network_has_one_color_and_a_network_of_ones_own_another():
    run = [make_history(0.4)]
    names = ["mynet", "LeNet-5", "MLP", "n"]
    figure = draw_curves("", dict.fromkeys(names, run), "test")
    alone = draw_curves("", {"MLP": run}, "test")
    for ax, other in zip(figure.axes, alone.axes, strict=True):
        assert len({to_hex(line.get_color()) for line in ax.lines}) == 4
        assert ax.lines[2].get_color() == other.lines[0].get_color()


# --- confusions and digits --------------------------------------------------------------------


def test_confusion_matrices_show_every_count_and_color_only_the_errors_in_the_same_shades():
    counts = np.diag(np.arange(90, 100))
    counts[3, 5], counts[7, 2] = 4, 1
    means = np.zeros((10, 10))
    means[0, 1], means[0, 2], means[0, 3] = 9.8, 5.7, 0.4
    left, right = draw_confusions("", {"A": counts, "B": means}).axes
    texts = {text.get_position(): text.get_text() for text in left.texts}
    assert texts == {**{(i, i): str(90 + i) for i in range(10)}, (5, 3): "4", (2, 7): "1"}
    drawn = left.images[0].get_array()
    assert np.ma.getmaskarray(drawn).tolist() == np.eye(10, dtype=bool).tolist()
    assert (drawn[3, 5], drawn[7, 2], drawn.sum()) == (4, 1, 5)
    assert (left.get_xlabel(), left.get_ylabel(), left.get_title()) == ("predicted", "true", "A")
    colors = {text.get_text(): text.get_color() for text in right.texts}
    assert colors == {"10": "white", "6": "black"}  # bright on a dark cell
    assert left.images[0].get_clim() == right.images[0].get_clim() == (0, 9.8)


def test_a_network_without_errors_has_a_confusion_matrix_too():
    [ax] = draw_confusions("perfect", {"": 5 * np.eye(10)}).axes
    assert [text.get_text() for text in ax.texts] == ["5"] * 10


def test_the_surest_of_the_misclassified_images_are_drawn_first_and_no_more_than_100():
    confidence = torch.linspace(0.2, 0.9, 150)
    probabilities = torch.zeros(150, 10)
    probabilities[:, 3] = confidence  # all are taken for a 3,
    labels = torch.full((150,), 8)
    labels[149] = 3  # which one of them is
    images = torch.arange(150, dtype=torch.uint8).view(150, 1, 1, 1).expand(150, 1, 28, 28)
    figure = draw_misclassified("lenet5.pt", images, labels, probabilities)
    [ax] = figure.axes
    expected = range(148, 48, -1)
    assert [text.get_text() for text in ax.texts] == [f"8→3\n{confidence[i]:.0%}" for i in expected]
    assert figure.get_suptitle().startswith("lenet5.pt: 100 of 149 misclassified test images")
    sheet = ax.images[0].get_array()
    assert sorted(set(sheet.flatten().tolist())) == [0, *sorted(expected)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [0, 1, 12])
def test_digits_are_drawn_ten_in_a_row_each_below_its_text(count):
    images = torch.randint(1, 256, (count, 1, 28, 28), dtype=torch.uint8)
    figure = draw_digits("digits", images, [f"no. {number}\nof all" for number in range(count)])
    figure.draw_without_rendering()
    [ax] = figure.axes
    sheet = ax.images[0].get_array()
    places = []
    for number, text in enumerate(ax.texts):
        assert text.get_text().startswith(f"no. {number}\n")
        center, top = text.get_position()
        left = int(center) - 14
        assert np.array_equal(sheet[top : top + 28, left : left + 28], images[number, 0])
        box = text.get_window_extent().transformed(ax.transData.inverted())
        covered = sheet[round(max(box.y1, 0)) : round(box.y0), round(box.x0) : round(box.x1)]
        assert covered.size
        assert not covered.any()
        places.append((top, left))
    assert (sheet > 0).sum() == count * 28 * 28  # none covers another
    rows = [top for top, _ in places]
    assert [rows.count(row) for row in sorted(set(rows))] == {0: [], 1: [1], 12: [10, 2]}[count]
    assert places == sorted(places)


# --- the file ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
def test_a_title_is_drawn_as_it_is_and_a_long_one_within_the_figure():
    figure = new_figure(2, r"a$\nonsense$ and much more text than there is room for in one line.pt")
    figure.draw_without_rendering()  # a broken formula would be an error
    box = figure._suptitle.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


def test_a_plot_is_a_png_of_the_size_that_was_asked(tmp_path):
    figure = draw_run("mynet", make_history(0.4), "test", epochs=1)
    save_figure(figure, tmp_path / "plots/x.png")
    with Image.open(tmp_path / "plots/x.png") as image:
        assert (image.format, image.size) == ("PNG", (5.5 * 150, 4.6 * 150))
        assert len(image.convert("RGB").getcolors(maxcolors=100_000)) > 10
