"""What the report trains: the rows of its tables, and the settings of main.py behind each."""

# What each technique of the ablation adds to the settings of main.py.
EPOCHS = 20
TECHNIQUES = {
    "augment": "--augment",
    "dropout": "--dropout 0.2",
    "weight-decay": "--weight-decay 5e-4",
    "label-smoothing": "--label-smoothing 0.05",
    "ema": "--ema 0.999",
}
TECHNIQUE_TITLES = {
    "augment": "augmentation",
    "dropout": "dropout",
    "weight-decay": "weight decay",
    "label-smoothing": "label smoothing",
    "ema": "averaged weights (EMA)",
}
# The rows of the ablation: in their names, + adds a technique, and - leaves it out.
ROWS = {
    "lenet5": "",
    "mlp": "--model mlp",
    **{f"lenet5+{name}": flag for name, flag in TECHNIQUES.items()},
    "lenet5+all": " ".join(TECHNIQUES.values()),
    **{
        f"lenet5+all-{left_out}": " ".join(
            flag for name, flag in TECHNIQUES.items() if name != left_out
        )
        for left_out in TECHNIQUES
    },
}
ROW_TITLES = {
    "lenet5": "LeNet-5, plain",
    "mlp": "MLP, plain",
    **{f"lenet5+{name}": f"with {title}" for name, title in TECHNIQUE_TITLES.items()},
    "lenet5+all": "all five",
    **{f"lenet5+all-{name}": f"all but {title}" for name, title in TECHNIQUE_TITLES.items()},
}

# The recipe, --regularize, and its controls: what of its gain is length, what regularization?
RECIPE_ROW, LONG_PLAIN, SHORT_RECIPE = "recipe", "lenet5-long", "recipe-short"
SHORT_RECIPE_OPTIONS = "--augment --weight-decay 5e-4"
# And the recipe without one of its parts. (--regularize cannot be told not to augment, so the first
# spells its settings out.)
ALL_AUGMENTED = "recipe-all-augmented"
RECIPE_WITHOUT = {
    "recipe-augment": ROWS["lenet5+weight-decay"],
    "recipe-weight-decay": "--regularize --weight-decay 0",
    ALL_AUGMENTED: "--regularize --no-aug-epochs 0",
}
PART_TITLES = {
    "recipe-augment": "without augmentation",
    "recipe-weight-decay": "without weight decay",
    ALL_AUGMENTED: "augmented in the last epochs, too",
}

# The peak learning rate, the same grid for both networks, on images held out of the training set.
HELD_OUT, CHOICE_SEEDS = 10_000, 2
LEARNING_RATES = (0.0125, 0.025, 0.05, 0.1, 0.2)
LR_CHOICES = {
    f"{model}-lr-{lr}": f"--model {model} --lr {lr}"
    for model in ("lenet5", "mlp")
    for lr in LEARNING_RATES
}

# How --regularize was chosen, on the same images: what was added to the default settings. From a
# first guess, one change at a time.
CHOICES = {
    "validation": "--augment --weight-decay 5e-4 --ema 0.999",
    "validation-augment": "--weight-decay 5e-4 --ema 0.999",
    "validation-weight-decay": "--augment --ema 0.999",
    "validation-ema": "--augment --weight-decay 5e-4",
    "validation+lr": "--augment --weight-decay 5e-4 --ema 0.999 --lr 0.1",
    "validation+weight-decay": "--augment --weight-decay 2e-4 --ema 0.999",
    "validation+label-smoothing": (
        "--augment --weight-decay 5e-4 --ema 0.999 --label-smoothing 0.05"
    ),
    "validation+dropout": "--augment --weight-decay 5e-4 --ema 0.999 --dropout 0.1",
}
# And then, with as many epochs as the recipe.
LONG_CHOICES = {
    "long": "--augment --weight-decay 5e-4",
    "long+weight-decay-2e-4": "--augment --weight-decay 2e-4",
    "long+weight-decay-1e-3": "--augment --weight-decay 1e-3",
    "long+no-aug-epochs": "--augment --no-aug-epochs 3 --weight-decay 5e-4",
}
