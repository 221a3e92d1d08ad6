"""The tables of tests of a study: values against scipy and statsmodels, invariances, and what has no answer."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM

from inference_cases import nets_of, results_of, runs_of
from kagscope.base.errors import InputError
from kagscope.studies.inference import infer
from kagscope.studies.inference.comparisons import COLUMNS as COMPARISON_COLUMNS
from kagscope.studies.inference.comparisons import comparisons
from kagscope.studies.inference.trained import trained_against_initial
from kagscope.studies.inference.trends import trends
from kagscope.studies.statistics import mixed_model

NUMBERS = ["effect", "low", "high", "p_value", "p_holm", "p_joint"]


def logs_of(runs: pd.DataFrame, scores: int = 3, points: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.2, 0.3, (scores, len(runs), points))


def test_few_seeds_are_students_paired_t_over_seed_means() -> None:
    runs = runs_of({"training": ["standard", "augmented"]}, 4)
    logs = logs_of(runs)
    table = trained_against_initial(nets_of(runs, logs, ["training"]))
    assert len(table) == 3 * (1 + 2)
    means = logs.mean(axis=2)
    for score in range(3):
        over_all = means[score].reshape(2, 4).mean(axis=0)
        row = table[(table["training"] == "all") & (table["score"] == f"s{score}")].iloc[0]
        assert row["effect"] == pytest.approx(np.exp(over_all.mean()))
        assert row["p_value"] == pytest.approx(stats.ttest_1samp(over_all, 0).pvalue)
        assert (row["n"], row["runs"], row["test"]) == (4, 8, "paired t over seeds")
        row = table[(table["training"] == "augmented") & (table["score"] == f"s{score}")].iloc[0]
        assert row["p_value"] == pytest.approx(stats.ttest_1samp(means[score, 4:], 0).pvalue)
    np.testing.assert_allclose(table["p_holm"][:3], stats_holm(table["p_value"][:3]))


def stats_holm(p: pd.Series) -> np.ndarray:
    from statsmodels.stats.multitest import multipletests

    return np.asarray(multipletests(p, method="holm")[1])


def test_six_seeds_are_an_exact_permutation_test_and_a_joint_one() -> None:
    runs = runs_of({}, 7)
    logs = logs_of(runs, 40)
    logs[0] += 1
    table = trained_against_initial(nets_of(runs, logs, []))
    for score in (0, 11):
        mean = logs[score].mean(axis=1)
        exact = stats.permutation_test((mean,), np.mean, permutation_type="samples", n_resamples=np.inf)
        assert table["p_value"][score] == pytest.approx(exact.pvalue)
    assert set(table["test"]) == {"sign flips of the mean over seeds, all 128"}
    assert (table["p_least"] == 2 / 2**7).all()
    assert table["p_holm"].min() > 0.05, "with 40 numbers Holm's method cannot get there"
    assert table["p_joint"][0] == 2 / 2**7, "all together can"


def test_interval_of_one_point_is_students_up_to_the_draws() -> None:
    runs = runs_of({}, 5)
    logs = logs_of(runs, 20, 1)
    table = trained_against_initial(nets_of(runs, logs, []))
    expected = stats.ttest_1samp(logs[:, :, 0], 0, axis=1).confidence_interval()
    width = np.log(table["high"] / table["low"]) / (expected.high - expected.low)
    assert ((width > 0.85) & (width < 1.15)).all()


@given(seed=st.integers(0, 1000), seeds=st.integers(2, 7))
@settings(max_examples=3, deadline=None)
def test_names_of_seeds_and_order_of_rows_do_not_matter(seed: int, seeds: int) -> None:
    rng = np.random.default_rng(seed)
    runs = runs_of({"training": ["standard", "augmented"], "width": [4, 8, 16]}, seeds)
    logs = logs_of(runs, 2, 3, seed)
    results = results_of(runs, logs)
    before = infer(results, runs, ["training", "width", "seed"])
    names = rng.permutation(100)[:seeds]
    renamed = runs.assign(seed=names[runs["seed"]])
    shuffled = results.assign(seed=names[results["seed"]].astype("int32")).sample(frac=1, random_state=seed)
    after = infer(shuffled, renamed, ["training", "width", "seed"])
    for name, table in before.tables().items():
        other = after.tables()[name]
        keys = ["score", *(column for column in ("training", "width", "axis", "category") if column in table)]
        one, two = (each.assign(**{key: each[key].astype(str) for key in keys}).sort_values(keys) for each in (table, other))
        exact = [
            column for column in ("effect", "tau", "p_value", "p_holm", "p_joint", "mixed_p_value", "agree", "n") if column in one
        ]
        if name == "trends":  # of drawn orders
            exact = [column for column in exact if not column.startswith("p_")]
            np.testing.assert_allclose(one["p_value"].to_numpy(float), two["p_value"].to_numpy(float), atol=0.03)
        np.testing.assert_allclose(one[exact].to_numpy(float), two[exact].to_numpy(float), rtol=1e-5, atol=1e-9)


@given(seed=st.integers(0, 1000), power=st.floats(0.2, 4), scale=st.floats(0.01, 100))
@settings(max_examples=3, deadline=None)
def test_units_and_powers_change_no_test(seed: int, power: float, scale: float) -> None:
    """Ratios of rescaled scores are the same; a power of a score has the power of its effect and the same tests."""
    runs = runs_of({"training": ["standard", "augmented"], "width": [4, 8, 16]}, 3)
    logs = logs_of(runs, 2, 3, seed)
    axes = ["training", "width"]
    plain, powered = nets_of(runs, logs, axes), nets_of(runs, power * logs, axes)
    results = results_of(runs, logs)
    scaled = type(plain).of(results.assign(value=scale * results["value"], baseline=scale * results["baseline"]), runs, axes)
    for make in (trained_against_initial, comparisons, trends):
        one, two, three = (make(nets) for nets in (plain, powered, scaled))
        p = [column for column in ("p_value", "p_holm", "p_joint", "tau", "agree") if column in one]
        np.testing.assert_allclose(two[p].to_numpy(float), one[p].to_numpy(float), rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(three[p].to_numpy(float), one[p].to_numpy(float), rtol=1e-6, atol=1e-12)
        ends = ["change", "change_low", "change_high"] if "change" in one else ["effect", "low", "high"]
        np.testing.assert_allclose(two[ends].to_numpy(float), one[ends].to_numpy(float) ** power, rtol=1e-6)
        np.testing.assert_allclose(three[ends].to_numpy(float), one[ends].to_numpy(float), rtol=1e-6)


def test_trend_knows_only_the_order() -> None:
    runs = runs_of({"width": [4, 8, 16, 32]}, 3)
    logs = logs_of(runs, 4, 1)
    bent = np.sinh(3 * logs) + logs**3
    one, two = (trends(nets_of(runs, each, ["width"])) for each in (logs, bent))
    columns = ["tau", "tau_low", "tau_high", "p_value", "p_joint", "p_least", "n"]
    np.testing.assert_array_equal(one[columns], two[columns])
    taus = [[stats.kendalltau(range(4), logs[0].reshape(4, 3)[:, seed]).statistic for seed in range(3)]]
    assert one["tau"][0] == pytest.approx(np.mean(taus))
    assert one["lowest"][0] == "4"
    assert one["highest"][0] == "32"


def test_swapping_trained_and_initial_turns_the_effect_round() -> None:
    runs = runs_of({}, 7)
    logs = logs_of(runs)
    one, two = (trained_against_initial(nets_of(runs, each, [])) for each in (logs, -logs))
    np.testing.assert_allclose(two[["effect", "low", "high"]], 1 / one[["effect", "high", "low"]], rtol=1e-9)
    np.testing.assert_allclose(two["p_value"], one["p_value"])


def test_categories_are_paired_where_seed_and_the_rest_are_shared() -> None:
    runs = runs_of({"optimizer": ["adam", "sgd", "rmsprop"], "width": [8, 16]}, 4)
    logs = logs_of(runs, 1, 2)
    rows = comparisons(nets_of(runs, logs, ["optimizer", "width"])).to_dict("records")
    assert [(row["axis"], row["category"]) for row in rows] == [("optimizer", "sgd"), ("optimizer", "rmsprop"), ("width", "16")]
    means = logs[0].mean(axis=1).reshape(3, 2, 4)
    difference = (means[2] - means[0]).mean(axis=0)
    row = rows[1]
    assert row["effect"] == pytest.approx(np.exp(difference.mean()))
    assert row["p_value"] == pytest.approx(stats.ttest_rel(means[2].mean(axis=0), means[0].mean(axis=0)).pvalue)
    assert (row["n"], row["pairs"], row["first"]) == (4, 8, "adam")
    assert row["agree"] == np.mean(np.sign((means[2] - means[0]).mean(axis=1)) == np.sign(difference.mean()))
    missing = runs.drop(index=0).reset_index(drop=True)
    rows = comparisons(nets_of(missing, logs[:, 1:], ["optimizer", "width"])).to_dict("records")
    assert rows[0]["pairs"] == 7, "a net without its like is in no pair"


def test_a_mixed_model_is_that_of_statsmodels() -> None:
    runs = runs_of({"training": ["standard", "augmented"], "label_noise": [0.0, 0.2], "width": [8, 16, 32]}, 5)
    rng = np.random.default_rng(1)
    net = rng.normal(0, 0.3, (3, 5))[np.searchsorted([8, 16, 32], runs["width"].to_numpy()), runs["seed"].to_numpy()]
    y = 0.1 * (runs["training"] == "augmented").to_numpy() + net + rng.normal(0, 0.1, len(runs))
    table = comparisons(nets_of(runs, y[None, :, None], ["training", "label_noise", "width"]))
    row = table[table["axis"] == "training"].iloc[0]
    frame = runs.assign(y=y, net=runs["width"].astype(str) + "/" + runs["seed"].astype(str))
    fitted = MixedLM.from_formula("y ~ C(training, Treatment('standard')) + C(label_noise) + C(width)", frame, groups="net").fit()
    name = "C(training, Treatment('standard'))[T.augmented]"
    assert np.log(row["mixed_effect"]) == pytest.approx(fitted.params[name], rel=1e-5)
    half = stats.t.isf(0.025, 60 - 15 - 2) * fitted.bse[name]
    assert np.log(row["mixed_high"]) == pytest.approx(fitted.params[name] + half, rel=1e-3)
    assert row["mixed_test"] == "MixedLM, random intercept of 15 untrained nets; t, 43 df"
    assert row["mixed_n"] == 60


@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_a_mixed_model_knows_no_offset(offset: float) -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(8), 4)
    design = np.column_stack([np.ones(32), np.tile([0.0, 1.0], 16)])
    y = rng.normal(size=8)[groups] + rng.normal(0, 0.5, 32)
    plain, moved = (mixed_model.fit_random_intercepts(each, design, groups, "seed") for each in (y, y + offset))
    assert not isinstance(plain, str)
    assert not isinstance(moved, str)
    np.testing.assert_allclose(moved[1], plain[1], rtol=1e-6)
    np.testing.assert_allclose(moved[0], plain[0] + np.array([offset, 0]), rtol=1e-6)
    assert (moved[2] == plain[2]).all()


def test_nets_of_one_seed_with_other_first_layers_are_no_one_untrained_net() -> None:
    runs = runs_of({"training": ["standard", "augmented"], "first_layer": ["drawn", "orthogonal"]}, 6)
    rng = np.random.default_rng(6)
    net = np.tile(rng.normal(0, 0.3, 12), 2)
    row = comparisons(nets_of(runs, (net + rng.normal(0, 0.1, 24))[None, :, None], ["training", "first_layer"])).iloc[0]
    assert "random intercept of 12 untrained nets" in row["mixed_test"]


def test_a_mixed_model_without_variance_between_nets_is_least_squares_and_says_so() -> None:
    runs = runs_of({"training": ["standard", "augmented"], "width": [8, 16]}, 6)
    y = np.where(runs["training"] == "augmented", 1, -1) * np.tile([0.1, 0.2, 0.3, 0.2, 0.1, 0.3], 4)  # nets average to 0
    row = comparisons(nets_of(runs, y[None, :, None], ["training", "width"])).iloc[0]
    assert row["mixed_test"] == "least squares: MixedLM finds no variance between 12 untrained nets; t, 21 df"
    design = np.column_stack([np.ones(24), runs["training"] == "augmented", runs["width"] == 16]).astype(float)
    assert np.log(row["mixed_effect"]) == pytest.approx(np.linalg.lstsq(design, y, rcond=None)[0][1])
    alone = runs_of({"width": [8, 16]}, 3).assign(seed=range(6))
    row = comparisons(nets_of(alone, y[None, :6, None], ["width"])).iloc[0]
    assert row["mixed_test"].startswith("least squares: no two nets share the seed")


def test_a_mixed_model_that_fails_is_least_squares_with_errors_by_cluster_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = runs_of({"training": ["standard", "augmented"]}, 6)
    logs = logs_of(runs, 1, 1)
    monkeypatch.setattr(mixed_model, "_fit_reml", lambda *_: mixed_model.FAILED)  # powell converges on all that was tried
    row = comparisons(nets_of(runs, logs, ["training"])).iloc[0]
    assert row["mixed_test"] == "least squares, errors by cluster: MixedLM of 6 untrained nets did not converge; t, 5 df"
    difference = logs[0, 6:, 0] - logs[0, :6, 0]
    assert np.log(row["mixed_effect"]) == pytest.approx(difference.mean())
    centred = logs[0, :, 0].reshape(2, 6) - logs[0, :, 0].reshape(2, 6).mean(axis=1, keepdims=True)
    error = np.sqrt(((centred[1] - centred[0]) ** 2).sum() / 36 * 6 / 5 * 11 / 10)  # the sandwich, with statsmodels' correction
    assert np.log(row["mixed_high"] / row["mixed_effect"]) == pytest.approx(stats.t.isf(0.025, 5) * error)


@pytest.mark.parametrize("effect", [0.0, 0.5])
def test_a_model_that_explains_every_net_has_no_p_value(effect: float) -> None:
    runs = runs_of({"training": ["standard", "augmented"], "width": [8, 16]}, 3)
    exact = np.log(runs["width"].to_numpy()) + effect * (runs["training"] == "augmented").to_numpy()
    by_net = exact + np.tile(np.random.default_rng(0).normal(size=6), 2)
    rows = comparisons(nets_of(runs, np.stack([exact, by_net])[:, :, None], ["training", "width"])).to_dict("records")
    assert {row["mixed_test"] for row in rows if row["axis"] == "training"} == {"the model explains every net"}
    assert all(np.isnan(row["mixed_p_value"]) for row in rows if row["axis"] == "training")


def test_where_no_two_nets_share_the_rest_all_are_held_against_all() -> None:
    rng = np.random.default_rng(2)
    rates = rng.uniform(1e-3, 1e-1, 12)
    runs = runs_of({"optimizer": ["adam", "sgd"]}, 6).assign(learning_rate=rates)
    logs = logs_of(runs, 2, 1)
    table = comparisons(nets_of(runs, logs, ["optimizer", "learning_rate"]))
    x, y = logs[0, 6:, 0], logs[0, :6, 0]
    row = table.iloc[0]
    assert row["test"].startswith("Welch's t over s"), "each run is a setting and a seed of its own"
    test = stats.ttest_ind(x, y, equal_var=False)
    assert row["p_value"] == pytest.approx(test.pvalue)
    np.testing.assert_allclose(np.log(row[["low", "high"]].astype(float)), test.confidence_interval())
    assert (row["pairs"], row["n"], row["p_least"]) == (0, 12, 0)
    assert trends(nets_of(runs, logs, ["optimizer", "learning_rate"]))["levels"].iloc[0] == 12


def test_studies_of_other_seeds_are_held_against_each_other_over_seeds() -> None:
    runs = runs_of({"study": ["a", "b"]}, 5).assign(seed=range(10))
    logs = np.random.default_rng(4).normal(0, 0.1, (1, 10, 1)) + 5 * (runs["study"] == "b").to_numpy()[None, :, None]
    row = comparisons(nets_of(runs, logs, ["study"])).iloc[0]
    assert row["n"] == 10
    assert row["test"].startswith("Welch's t over seeds")
    assert row["p_value"] == pytest.approx(stats.ttest_ind(logs[0, 5:, 0], logs[0, :5, 0], equal_var=False).pvalue)


def test_small_outcomes_that_differ_are_tested() -> None:
    runs = runs_of({"training": ["standard", "augmented"]}, 8)
    runs["accuracy"] = 1e-13 * (3 + np.random.default_rng(5).normal(0, 0.3, 16) + (runs["training"] == "augmented"))
    table = comparisons(nets_of(runs, logs_of(runs, 1, 1), ["training"])).set_index("score")
    assert float(table["p_value"]["accuracy"]) < 0.05


def test_axes_that_change_together_are_named_and_not_held_fixed() -> None:
    runs = runs_of({"optimizer": ["adam", "sgd"]}, 4)
    runs["learning_rate"] = runs["optimizer"].map({"adam": 1e-3, "sgd": 1e-1})
    table = comparisons(nets_of(runs, logs_of(runs, 1), ["optimizer", "learning_rate"]))
    assert table["pairs"].tolist() == [4, 4]
    assert table["also_changes"].tolist() == ["learning_rate", "optimizer"]
    assert table["mixed_effect"].notna().all()


def test_numbers_in_the_names_of_data_sets_have_a_trend() -> None:
    runs = runs_of({"data": ["mixed3:0.5", "mixed3:0", "random3", "mixed3:1"]}, 3)
    order = runs["data"].map({"mixed3:0": 0.0, "mixed3:0.5": 1.0, "mixed3:1": 2.0, "random3": -5.0}).to_numpy()
    row = trends(nets_of(runs, order[None, :, None], ["data"])).iloc[0]
    assert (row["axis"], row["levels"], row["tau"], row["lowest"], row["highest"]) == (
        "data mixed3",
        3,
        1,
        "mixed3:0",
        "mixed3:1",
    )
    assert row["p_value"] == pytest.approx(2 / 216)
    assert row["tau_low"] < 0.9
    assert row["runs"] == 9


def test_trend_over_blocks_with_missing_levels() -> None:
    runs = runs_of({"width": [4, 8, 16]}, 3).drop(index=[1, 8]).reset_index(drop=True)
    row = trends(nets_of(runs, runs["width"].to_numpy(float)[None, :, None], ["width"])).iloc[0]
    assert (row["tau"], row["n"]) == (1, 3)
    assert row["p_value"] <= 0.1


def test_scores_with_zeros_are_differences_and_those_about_the_initial_net_are_not_tested_against_it() -> None:
    runs = runs_of({"training": ["standard", "augmented"]}, 3)
    results = results_of(runs, logs_of(runs, 3), ["pr", "zero_rows", "kl_init"])
    results.loc[(results["score"] == "zero_rows") & (results["point"] == 0), "value"] = 0.0
    nets = type(nets_of(runs, logs_of(runs), [])).of(results, runs, ["training"])
    assert nets.keys.set_index("score")["measure"].to_dict() == {
        "pr": "ratio",
        "zero_rows": "difference",
        "kl_init": "value",
    }
    table = trained_against_initial(nets)
    own = table[table["score"] == "kl_init"]
    assert own["p_value"].isna().all()
    assert set(own["reason"]) == {"measures a distance from the initial net"}
    row = table[table["score"] == "zero_rows"].iloc[0]
    rows = results[results["score"] == "zero_rows"]
    assert row["effect"] == pytest.approx((rows["value"] - rows["baseline"]).groupby(rows["seed"]).mean().mean())
    assert comparisons(nets)["p_value"].notna().all()


def test_one_seed_is_no_test_and_no_crash() -> None:
    runs = runs_of({"training": ["standard", "augmented"], "width": [4, 8, 16]}, 1)
    found = infer(results_of(runs, logs_of(runs)), runs, ["training", "width"])
    assert found.trained[["p_value", "p_holm", "low", "high"]].isna().all(axis=None)
    assert set(found.trained["reason"]) == {"one seed"}
    assert found.trained["effect"].notna().all()
    assert set(found.comparisons["reason"]) == {"one seed"}
    assert (found.trends["p_value"] >= 2 / 6 - 1e-12).all()


def test_what_never_changes_and_what_is_nowhere_defined_have_no_p_value() -> None:
    runs = runs_of({"training": ["standard", "augmented"], "width": [4, 8, 16]}, 3)
    logs = logs_of(runs, 4)
    logs[0] = 0.0  # untrained
    logs[1] = np.log(2)  # doubled in every net
    logs[2] = np.nan
    logs[3, 0] = np.nan  # one net is undefined
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = infer(results_of(runs, logs), runs, ["training", "width"])
    over_all = found.trained[found.trained["training"] == "all"].set_index("score")
    assert over_all["reason"].tolist() == [
        "no difference in any net",
        "the difference is the same in every seed",
        "every minor is zero",
        "",
    ]
    assert over_all["p_value"].isna().tolist() == [True, True, True, False]
    np.testing.assert_allclose(over_all["effect"][:2], [1, 2])
    assert over_all.loc["s3", "n"] == 3
    assert found.trained.set_index("score").loc["s3"]["n"].min() == 2
    for table in (found.comparisons, found.trends):
        assert (table[table["p_value"].isna()]["reason"] != "").all()
        assert table[table["score"] == "s3"]["p_value"].notna().all()
    assert found.comparisons.set_index("score").loc["s0", "mixed_test"] == "all values are equal"


def test_a_study_of_one_category_has_no_comparison_and_no_trend() -> None:
    runs = runs_of({}, 3)
    found = infer(results_of(runs, logs_of(runs)), runs, ["seed"])
    assert list(found.comparisons.columns) == list(COMPARISON_COLUMNS)
    assert len(found.comparisons) == len(found.trends) == 0
    assert len(found.trained) == 3
    assert len(found.findings) == 1


def test_findings_count_and_name_the_clearest_or_say_that_nothing_differs() -> None:
    runs = runs_of({"training": ["standard", "augmented"], "width": [4, 8, 16]}, 5)
    rng = np.random.default_rng(0)
    logs = rng.normal(0, 0.1, (4, len(runs), 3))
    logs[2] += 0.8 + (runs["training"] == "augmented").to_numpy()[:, None] + np.log(runs["width"].to_numpy())[:, None]
    found = infer(results_of(runs, logs), runs, ["training", "width"]).findings
    assert [one.code for one in found] == ["training_effect", "category_effect", "trend"]
    assert all((one.numbers["differ"], one.numbers["tested"], one.numbers["score"]) == (1, 4, "s2") for one in found)
    low, effect, high = (float(found[0].numbers[name]) for name in ("low", "effect", "high"))
    assert low < effect < high
    assert [found[1].numbers[name] for name in ("axis", "category", "first")] == ["training", "augmented", "standard"]
    assert (found[2].numbers["axis"], found[2].numbers["tau"]) == ("width", 1)
    nothing = infer(results_of(runs, rng.normal(0, 0.1, logs.shape)), runs, ["training", "width"]).findings
    assert [one.numbers["differ"] for one in nothing] == [0, 0, 0]
    assert all("score" not in one.numbers for one in nothing)


def test_equal_tables_give_equal_numbers() -> None:
    runs = runs_of({"training": ["standard", "augmented"], "width": [4, 8, 16]}, 3)
    results = results_of(runs, logs_of(runs))
    one, two = (infer(results, runs, ["training", "width"]) for _ in range(2))
    for name, table in one.tables().items():
        pd.testing.assert_frame_equal(table, two.tables()[name])


def test_missing_columns_are_named() -> None:
    runs = runs_of({}, 2)
    with pytest.raises(InputError, match="optimizer"):
        infer(results_of(runs, logs_of(runs)), runs, ["optimizer"])
