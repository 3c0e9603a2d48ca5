"""The settings of a run: they check themselves, and know what a resumed run may change."""

import math

import numpy as np
import pytest

from support.errors import RunError
from support.settings import RECIPE, Settings, changed_settings, option


@pytest.mark.parametrize(
    ("name", "outside", "inside"),
    [
        ("epochs", 0, 1),
        ("batch_size", 0, 1),
        ("lr", 0, 1e-9),
        ("lr", math.inf, 1e9),
        ("lr", math.nan, 1),
        ("momentum", 1, 0),
        ("dropout", 1, 0),
        ("weight_decay", -1, 0),
        ("label_smoothing", 1, 0),
        ("ema", 1, 0),
        ("seed", -1, 0),
        ("validation", -5, 0),
        ("threads", 0, 1),
        ("threads", 1025, 1024),
        ("epochs", 1.5, 2),
        ("batch_size", "many", 3),
    ],
)
def test_a_number_outside_of_its_interval_is_refused(name, outside, inside):
    assert getattr(Settings(**{name: inside}), name) == inside
    with pytest.raises(RunError, match=f"^{option(name)} {outside} is not an? (integer|number) in"):
        Settings(**{name: outside})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"no_aug_epochs": 1}, "requires --augment"),
        ({"augment": "deform", "epochs": 2, "no_aug_epochs": 3}, "3 exceeds --epochs 2"),
        ({"model": "../elsewhere"}, "--name"),
        ({"name": "x" * 250}, "--name is too long"),
        ({"name": "NUL.txt"}, "Windows"),
        ({"name": "com1"}, "Windows"),
    ],
)
def test_what_does_not_go_together_or_names_no_file_is_refused(given, message):
    with pytest.raises(RunError, match=message):
        Settings(**given)


def test_a_setting_that_does_not_exist_is_refused():
    with pytest.raises(TypeError, match="no setting called epoch"):
        Settings(epoch=3)


def test_numbers_of_numpy_become_plain_ones():
    settings = Settings(lr=np.logspace(-2, -1, 2)[0], epochs=np.int64(3), dropout=np.float32(0.5))
    numbers = settings.lr, settings.epochs, settings.dropout
    assert [type(number) for number in numbers] == [float, int, float]
    assert numbers == (0.01, 3, 0.5)


def test_regularize_applies_the_recipe_from_python_too():
    plain = Settings(**RECIPE).plain()
    assert Settings(regularize=True).plain() == plain | {
        "regularize": True,
        "name": "lenet5-regularized",
    }
    assert Settings(regularize=True, weight_decay=0).weight_decay == 0


@pytest.mark.parametrize(("epochs", "no_aug_epochs"), [(1, 0), (3, 2), (100, 3)])
def test_the_recipe_may_be_short_and_still_augments(epochs, no_aug_epochs):
    settings = Settings(regularize=True, epochs=epochs)
    assert settings.augment
    assert settings.no_aug_epochs == no_aug_epochs


def test_a_run_is_called_after_its_model_unless_it_is_named():
    assert Settings(model="mlp").name == "mlp"
    assert Settings(model="mlp", name="mine").name == "mine"
    assert Settings(regularize=True).name == "lenet5-regularized"
    assert Settings(regularize=True, name="mine").name == "mine"


def test_what_is_watched_is_the_test_set_unless_images_are_held_out():
    assert Settings().watched == "test"
    assert Settings(validation=9).watched == "val"


def test_settings_are_saved_as_plain_values_under_the_names_of_the_options():
    plain = Settings(data_dir="a/b", epochs=7, augment="deform").plain()
    assert (plain["data_dir"], plain["results_dir"]) == ("a/b", "results")
    assert (plain["epochs"], plain["augment"], plain["threads"]) == (7, "deform", None)


def test_settings_that_change_what_is_learned_count_as_changed_in_the_order_of_the_options():
    another = dict.fromkeys(Settings().plain(), "another")
    assert list(changed_settings(another, Settings())) == [
        *("model", "batch_size", "optimizer", "lr", "momentum", "schedule", "seed", "validation"),
        *("augment", "no_aug_epochs", "dropout", "weight_decay", "label_smoothing", "ema"),
    ]


def test_a_setting_that_was_not_yet_saved_counts_as_its_default():
    before = Settings(lr=0.01).plain()
    del before["ema"], before["seed"]
    assert changed_settings(before, Settings(lr=0.01)) == {}
    assert changed_settings(before, Settings(lr=0.01, seed=1)) == {"seed": 0}


def test_augmentation_saved_as_yes_or_no_is_todays_only_one():
    for saved, today, other in ((True, "deform", None), (False, None, "deform")):
        before = Settings().plain() | {"augment": saved}
        assert changed_settings(before, Settings(augment=today)) == {}
        assert changed_settings(before, Settings(augment=other)) == {"augment": today}
