"""Does removing the most nearly constant units cost less accuracy than removing the smallest, or any?

    python benchmarks/pruning.py --data FOLDER [--seeds 5] [--epochs 5] [--out docs/results]

Nets 784-256-256-10 are trained on MNIST. From both hidden layers the same number of units is taken, chosen by three criteria: the
least tolerance at which ``kagscope.prune`` would take them (looked at on training images), the L2 norm of their incoming weights
(magnitude pruning), and at random. Each choice is evaluated on the test images twice: with the units' mean value folded into the
next layer's bias, and without (the units are cut off, as magnitude pruning does). No training afterwards. Prints tables; with
--out writes pruning.csv and pruning.png.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import kagscope as kag
from kagscope.base.files import atomic_path, atomic_write
from kagscope.data import load
from kagscope.figures.style import BLUE, DOUBLE_COLUMN, GREY, VERMILLION, new_figure, style
from kagscope.pruning.prune import remove_units
from kagscope.training import TrainingSettings, train
from kagscope.training.models import mlp

HIDDEN = (256, 256)
SETTINGS: dict[str, dict[str, object]] = {
    "ReLU": {"activation": "relu"},
    "ReLU, weight decay 1e-4": {"activation": "relu", "weight_decay": 1e-4},
    "GELU": {"activation": "gelu"},
}
FRACTIONS = (0.1, 0.25, 0.5, 0.75, 0.9)
TOLERANCES = (0.0, 0.01, 0.05, 0.1, 0.2, 0.5)
LOOKED_AT = 10_000  # training images
COLOURS = {"constant": BLUE, "magnitude": VERMILLION, "random": GREY}
Scores = dict[str, np.ndarray]


def trained(dataset: kag.data.Dataset, setting: str, seeds: int, epochs: int) -> list[nn.Sequential]:
    settings = TrainingSettings(hidden=HIDDEN, epochs=epochs, checkpoints=2, **SETTINGS[setting])  # type: ignore[arg-type]
    models = []
    for network in train(dataset, settings, range(seeds)):
        model = mlp(dataset.n_inputs, HIDDEN, dataset.n_classes, settings.activation, seed=0)
        model.load_state_dict(network.final)
        models.append(model)
    return models


def scores(model: nn.Sequential, pruning: kag.Pruning, seed: int) -> dict[str, Scores]:
    """For each criterion and layer a number for each unit; the lowest go first."""
    generator = np.random.default_rng(seed)
    names = list(pruning.units)
    weights = {name: model.get_parameter(f"{name}.weight").detach() for name in names}
    return {
        "constant": pruning.least_tolerances(),
        "magnitude": {name: weight.norm(dim=1).numpy() for name, weight in weights.items()},
        "random": {name: generator.random(len(weight)) for name, weight in weights.items()},
    }


def lowest(values: np.ndarray, fraction: float) -> np.ndarray:
    mask = np.zeros(len(values), bool)
    mask[np.argsort(values, kind="stable")[: round(fraction * len(values))]] = True
    return mask


def cut_off(model: nn.Sequential, masks: dict[str, np.ndarray]) -> nn.Sequential:
    """The model with the outgoing weights of the units set to 0: removed with nothing folded."""
    smaller = copy.deepcopy(model)
    maps = {name: module for name, module in smaller.named_modules() if isinstance(module, nn.Linear)}
    following = dict(zip(list(maps)[:-1], list(maps.values())[1:], strict=True))
    for name, mask in masks.items():
        with torch.no_grad():
            following[name].weight[:, torch.from_numpy(mask)] = 0
    return smaller


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        return float((model(images).argmax(1) == labels).double().mean())


def compare(
    setting: str, models: list[nn.Sequential], looked_at: Tensor, test: tuple[Tensor, Tensor]
) -> tuple[list[dict[str, object]], list[pd.DataFrame]]:
    rows: list[dict[str, object]] = []
    curves = []
    for seed, model in enumerate(models):
        _, pruning = kag.prune(model, looked_at)
        curve = pruning.curve(TOLERANCES)
        whole = accuracy(model, *test)
        tests = []
        for tolerance in TOLERANCES:
            smaller, _ = kag.prune(model, looked_at, tolerance)
            tests.append(accuracy(smaller, *test))
        curves.append(curve.assign(accuracy=tests, before=whole, setting=setting))
        for criterion, found in scores(model, pruning, seed).items():
            for fraction in FRACTIONS:
                masks = {name: lowest(values, fraction) for name, values in found.items()}
                folded, _ = remove_units(model, looked_at, masks)
                for fold, net in ((True, folded), (False, cut_off(model, masks))):
                    loss = whole - accuracy(net, *test)
                    rows.append(
                        {
                            "setting": setting,
                            "seed": seed,
                            "criterion": criterion,
                            "fraction": fraction,
                            "folded": fold,
                            "loss": loss,
                        }
                    )
    return rows, curves


def interval(values: pd.Series) -> str:
    """Mean and half of the 95% interval over nets, in percentage points."""
    from scipy import stats

    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return f"{100 * values.mean():.2f} ± {100 * half:.2f}"


def table(frame: pd.DataFrame) -> str:
    lines = [
        "| net | removed | " + " | ".join(f"{c}, {'folded' if f else 'cut off'}" for c in COLOURS for f in (True, False)) + " |",
        "|---" * 8 + "|",
    ]
    for _, part in frame.groupby(["setting", "fraction"], sort=False):
        setting, fraction = str(part.setting.iloc[0]), float(part.fraction.iloc[0])
        cells = [interval(part[(part.criterion == c) & (part.folded == f)].loss) for c in COLOURS for f in (True, False)]
        lines.append(f"| {setting} | {100 * fraction:.0f}% | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def paired_table(frame: pd.DataFrame) -> str:
    """Loss by the constant criterion less loss by magnitude, net by net; below 0 the constant criterion is better."""
    lines = ["| net | removed | folded | cut off |", "|---|---|---|---|"]
    by = frame.pivot_table(
        index=["setting", "fraction", "folded", "seed"], columns="criterion", values="loss", sort=False
    ).reset_index()
    by["difference"] = by.constant - by.magnitude
    for _, part in by.groupby(["setting", "fraction"], sort=False):
        cells = [interval(part[part.folded == folded].difference) for folded in (True, False)]
        lines.append(f"| {part.setting.iloc[0]} | {100 * part.fraction.iloc[0]:.0f}% | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def curve_table(curves: pd.DataFrame) -> str:
    lines = [
        "| net | tolerance | units removed of 512 | largest change of an output | points of test accuracy lost |",
        "|---|---|---|---|---|",
    ]
    for _, part in curves.groupby(["setting", "tolerance"], sort=False):
        setting, tolerance = part.setting.iloc[0], part.tolerance.iloc[0]
        units = f"{part.units.mean():.1f} ({part.units.min()} to {part.units.max()})"
        lines.append(
            f"| {setting} | {tolerance:g} | {units} | {part.largest_change.max():.2g} | {interval(part.before - part.accuracy)} |"
        )
    return "\n".join(lines)


def draw(frame: pd.DataFrame, target: Path) -> None:
    with style(), atomic_path(target) as temporary:
        figure = new_figure(DOUBLE_COLUMN, 2.4)
        axes = figure.subplots(1, len(SETTINGS), sharey=True)
        for ax, setting in zip(axes, SETTINGS, strict=True):
            for criterion, colour in COLOURS.items():
                for folded, line in ((True, "-"), (False, "--")):
                    chosen = frame[(frame.setting == setting) & (frame.criterion == criterion) & (frame.folded == folded)]
                    found = chosen.groupby("fraction").loss.agg(["mean", "min", "max"]) * 100
                    x = 100 * found.index.to_numpy()
                    ax.plot(
                        x,
                        found["mean"],
                        line,
                        color=colour,
                        marker="o",
                        label=f"{criterion}, {'folded' if folded else 'cut off'}",
                    )
                    ax.fill_between(x, found["min"], found["max"], color=colour, alpha=0.12, linewidth=0)
            ax.set(title=setting, xlabel="units removed from each layer (%)")
            ax.set_yscale("symlog", linthresh=1)
        axes[0].set_ylabel("test accuracy lost (points)")
        axes[0].legend(fontsize=6)
        figure.savefig(temporary, dpi=200, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument(
        "--out", type=Path, default=None, help="folder for pruning.csv and pruning.png; none are written without it"
    )
    options = parser.parse_args()
    start = time.perf_counter()
    dataset = load(options.data)
    images = torch.from_numpy(dataset.train_images).flatten(1)[:: max(1, len(dataset.train_images) // LOOKED_AT)]
    test = torch.from_numpy(dataset.test_images).flatten(1), torch.from_numpy(dataset.test_labels)
    rows: list[dict[str, object]] = []
    curves: list[pd.DataFrame] = []
    for setting in SETTINGS:
        models = trained(dataset, setting, options.seeds, options.epochs)
        found, more = compare(setting, models, images, test)
        rows += found
        curves += more
        before = np.mean([part.before.iloc[0] for part in more])
        print(f"{setting}: test accuracy {before:.4f}, {time.perf_counter() - start:.0f} s", flush=True)
    frame = pd.DataFrame(rows)
    print(f"\nPoints of test accuracy lost, mean and 95% interval over {options.seeds} nets\n\n{table(frame)}\n")
    print(f"Constant less magnitude, net by net\n\n{paired_table(frame)}\n")
    print(f"kagscope.prune by tolerance\n\n{curve_table(pd.concat(curves))}\n")
    print(f"{time.perf_counter() - start:.0f} s in all")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        atomic_write(options.out / "pruning.csv", frame.to_csv(index=False, float_format="%.6g"))
        draw(frame, options.out / "pruning.png")


if __name__ == "__main__":
    main()
