"""The curves of the report show the means of their runs, and say what they cut."""

import pytest
from helpers import legend_of, make_runs
from PIL import Image

from support.report import curves
from support.report.plan import FRESH_TITLES


def test_curves_are_means_of_each_networks_runs_with_bands_and_a_legend(saved):
    rows = {"LeNet-5": make_runs((99, 0.1), epochs=4), "MLP": make_runs((98, 0.3), epochs=4)}
    curves.save_curves("x.png", "Two networks", rows)
    [figure] = saved
    assert figure.get_suptitle() == (
        "Two networks\n3 seeds, mean ± 1 SD; training: mean over the epoch"
    )
    panels = {ax.get_title(): ax for ax in figure.axes}
    lenet5, mlp = panels["test accuracy"].lines
    assert lenet5.get_ydata().tolist() == pytest.approx([96, 97, 98, 99])
    assert mlp.get_ydata().tolist() == pytest.approx([95, 96, 97, 98])
    assert lenet5.get_color() != mlp.get_color()
    for line, band in zip((lenet5, mlp), panels["test accuracy"].collections, strict=True):
        heights = [y for x, y in band.get_paths()[0].vertices if x == 4]
        deviation = 0.1 if line is lenet5 else 0.3
        assert max(heights) - min(heights) == pytest.approx(2 * deviation)
    for ax in panels.values():
        assert legend_of(ax)[0].startswith("LeNet-5")
        assert legend_of(ax)[1].startswith("MLP")


def test_a_band_reaches_below_the_lowest_run_and_below_0_where_a_deviation_does(saved):
    runs = make_runs(loss=(0.1, 0), epochs=1)
    for run, loss in zip(runs, (0.001, 0.001, 0.4), strict=True):
        run["history"][0]["test_loss"] = loss
    curves.save_curves("x.png", "", {"LeNet-5": runs})
    panels = {ax.get_title(): ax for ax in saved[0].axes}
    heights = panels["test loss"].collections[0].get_paths()[0].vertices[:, 1]
    mean, deviation = (
        0.134,
        0.399 / 3**0.5,
    )  # two at 0.133 below the mean, one at twice as much above
    assert [min(heights), max(heights)] == pytest.approx([mean - deviation, mean + deviation])


def test_losses_are_logarithmic_and_accuracies_start_where_the_label_says(saved):
    curves.save_curves("x.png", "", {"MLP": make_runs(epochs=3)}, lowest_accuracy=80)
    for ax in saved[0].axes:
        if "loss" in ax.get_title():
            assert ax.get_yscale() == "log"
            assert ax.get_ylabel() == "cross-entropy, log scale"
            format_loss = ax.yaxis.get_major_formatter()
            assert [format_loss(loss, 0) for loss in (1e-5, 0.02, 3.0)] == ["0.00001", "0.02", "3"]
        else:
            assert ax.get_yscale() == "linear"
            assert ax.get_ylim() == pytest.approx((80, 100.4))
            assert ax.get_ylabel() == "accuracy (%; axis starts at 80)"
        assert ax.get_legend() is None  # of a single curve, which the title names


def test_a_curve_that_leaves_its_axis_has_its_lowest_value_in_the_legend(saved):
    rows = {"LeNet-5": make_runs((99, 0.1), epochs=4), "MLP": make_runs((95.5, 0.3), epochs=4)}
    curves.save_curves("x.png", "", rows, lowest_accuracy=92.3)
    panels = {ax.get_title(): ax for ax in saved[0].axes}
    assert legend_of(panels["test accuracy"]) == ["LeNet-5", "MLP"]  # the lowest is 92.5%
    assert legend_of(panels["training accuracy"]) == [
        "LeNet-5 (lowest: 91.0%)",
        "MLP (lowest: 87.5%)",
    ]
    assert legend_of(panels["test loss"]) == ["LeNet-5", "MLP"]


def test_the_decades_below_the_lowest_loss_are_cut_and_the_picture_says_so(saved):
    runs = make_runs(loss=(1e-4, 0), epochs=3)  # in training, never below 1
    curves.save_curves("x.png", "", {"LeNet-5": runs}, lowest_loss=0.01, lowest_accuracy=80)
    panels = {ax.get_title(): ax for ax in saved[0].axes}
    assert panels["test loss"].get_ylim()[0] == 0.01
    assert panels["test loss"].get_ylabel() == "cross-entropy, log, from 0.01"
    assert legend_of(panels["test loss"]) == ["LeNet-5 (lowest: 0.0001)"]
    assert panels["training loss"].get_ylim()[0] > 0.9
    assert panels["training loss"].get_ylabel() == "cross-entropy, log scale"
    assert panels["training loss"].get_legend() is None


def test_the_epochs_without_augmentation_are_shaded(saved):
    curves.save_curves("x.png", "", {"MLP": make_runs(epochs=9)}, no_aug_epochs=3)
    curves.save_curves("x.png", "", {"MLP": make_runs(epochs=9)})
    for ax, plain in zip(saved[0].axes, saved[1].axes, strict=True):
        [shade] = ax.patches
        ends = shade.get_patch_transform().transform(shade.get_path().vertices)[:, 0]
        assert (min(ends), max(ends)) == (6.5, 9.5)
        assert not plain.patches


def test_the_curves_of_one_epoch_can_be_seen(saved):
    curves.save_curves("x.png", "", {"LeNet-5": make_runs((60, 1), (0.2, 0.1), epochs=1)})
    for ax in saved[0].axes:
        [line] = ax.lines
        assert line.get_marker() == "o"  # a line of one point has no length
        bottom, top = ax.get_ylim()
        assert bottom < line.get_ydata()[0] < top


def test_a_figure_is_written_as_a_png(tmp_path):
    curves.save_curves(tmp_path / "x.png", "", {"MLP": make_runs(epochs=2)})
    with Image.open(tmp_path / "x.png") as image:
        assert image.format == "PNG"


def test_the_test_accuracy_of_all_networks_is_one_picture_with_each_ones_end(saved):
    rows = {
        title: make_runs((95 + place, 0.1 + place / 10), epochs=4 + place)
        for place, title in enumerate(FRESH_TITLES.values())
    }
    curves.save_accuracy("x.png", rows, lowest=92)
    [figure] = saved
    [ax] = figure.axes
    assert figure.get_suptitle() == "Test accuracy by epoch: mean ± 1 SD of 3 seeds"
    assert ax.get_ylabel() == "test accuracy (%; axis starts at 92)"
    assert ax.get_ylim()[0] == 92
    assert legend_of(ax) == list(rows)
    bands = ax.collections
    for place, (line, end, band) in enumerate(
        zip(ax.lines[::2], ax.lines[1::2], bands, strict=True)
    ):
        epochs = 4 + place
        assert line.get_xdata().tolist() == list(range(1, epochs + 1))
        assert line.get_ydata()[-2:].tolist() == pytest.approx([94 + place, 95 + place])
        assert (end.get_xdata().tolist(), end.get_ydata().tolist()) == (
            [epochs],
            pytest.approx([95 + place]),
        )
        assert end.get_color() == line.get_color()
        heights = [y for x, y in band.get_paths()[0].vertices if x == epochs]
        assert max(heights) - min(heights) == pytest.approx(0.2 + place / 5)
    assert len({line.get_color() for line in ax.lines}) == len(rows)
