"""The six claims on tables whose effects are known: each verdict by construction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from judging import INCONCLUSIVE, NOT_REPRODUCED, REPRODUCED, judge
from kagscope.studies.claims import Claim
from kagscope.studies.claims.scales import pair_share
from synthetic import make_results, with_ratio


@pytest.fixture(scope="module")
def planted() -> pd.DataFrame:
    return make_results()


@pytest.fixture(scope="module")
def found(planted: pd.DataFrame) -> dict[int, Claim]:
    return judge(planted)


def test_planted_effects_are_found(found: dict[int, Claim]) -> None:
    assert [claim.verdict for claim in found.values()] == [REPRODUCED] * 6
    assert all(claim.p_value == 1 / 32 and claim.n == 5 and claim.control is None for claim in found.values())
    # 0.6, 0.75 and 0.9 over 1 at the three widths; the smaller of two noisy layers is reported
    assert found[1].effect == pytest.approx(1.75, abs=0.05)
    assert found[4].effect == pytest.approx(1.9 / 1.6, abs=0.05)
    assert found[5].effect == pytest.approx(0.7, abs=0.02)
    assert found[6].effect == pytest.approx(0.1, abs=0.01)
    assert abs(found[2].effect) < 0.01
    for claim in found.values():
        (row,) = [one for one in claim.parts if one["decides"] and one["effect"] == claim.effect]
        assert (row["ci_low"], row["p_value"], row["n"], row["verdict"]) == (claim.ci_low, 1 / 32, 5, REPRODUCED)
    assert "apart(8) dropped" in found[3].note


# --- claim 1


@pytest.mark.parametrize(
    "knobs",
    [
        {"excess": 0.0, "per_doubling": 0.0, "net_noise": 0.005, "point_noise": 0.005},
        {"kl_rise": 0.0},
        {"kl_rise": -0.1},
        {"rotation": 0.9},
        {"rotation": 1.3, "rotation_initial": 1.5},
    ],
    ids=["no PR ratio", "no KL", "KL falls", "not aligned", "less aligned than before"],
)
def test_one_failing_part_refutes_claim_1_and_leaves_the_others_open(knobs: dict[str, Any]) -> None:
    claims = judge(make_results(**knobs))
    assert claims[1].verdict == NOT_REPRODUCED
    for number in range(2, 7):
        assert claims[number].verdict == INCONCLUSIVE
        assert "claim 1" in claims[number].note


def test_claim_1_is_open_between_the_two() -> None:
    claims = judge(make_results(excess=0.01, per_doubling=0.0, net_noise=0.05, seeds=4))
    assert claims[1].verdict == INCONCLUSIVE
    assert claims[1].ci_low < 1.01 < claims[1].ci_high


def test_one_weak_layer_is_enough_to_withhold_claim_1(planted: pd.DataFrame) -> None:
    chosen = (planted["layer"] == "3") & (planted["score"] == "pr") & (planted["k"] == 2)
    claim = judge(with_ratio(planted, chosen, 1.0))[1]
    assert claim.verdict == NOT_REPRODUCED
    assert "layer 3" in claim.decided_by


def test_the_papers_rotation_ratio_is_optional_but_the_closed_form_is_not() -> None:
    assert judge(make_results(drop=lambda t: t["score"] == "rr_max"))[1].verdict == REPRODUCED
    without = judge(make_results(drop=lambda t: t["score"] == "rr_pr"))[1]
    assert without.verdict == INCONCLUSIVE
    assert "missing: rr_pr in layer 1" in without.note


@pytest.mark.parametrize("seeds", [5, 1])
def test_untrained_nets_reproduce_nothing(seeds: int) -> None:
    claims = judge(make_results(steps=(0,), seeds=seeds))
    assert [claim.verdict for claim in claims.values()] == [NOT_REPRODUCED] + [INCONCLUSIVE] * 5
    assert claims[1].effect == 1.0
    assert "untrained" in claims[1].note


# --- claims 2 and 3


@pytest.mark.parametrize(("number", "knob"), [(2, "scale_slope"), (3, "distance_slope")])
def test_scales(number: int, knob: str) -> None:
    def one(slope: float, **more: float) -> Claim:
        return judge(make_results(**({knob: slope} | more)), image_shape=(8, 8))[number]  # type: ignore[arg-type]

    assert one(0.10).verdict == REPRODUCED
    steep = one(0.5)
    assert steep.verdict == NOT_REPRODUCED
    assert steep.ci_low > 0.10 or steep.ci_high < -0.10
    # the three distances that are left of four: a third of the slope on either side, of a mean a sixth lower
    assert one(0.2 if number == 2 else 0.286, scale_noise=0.03).verdict == INCONCLUSIVE
    other = {2: 3, 3: 2}[number]
    assert judge(make_results(**{knob: 0.5}))[other].verdict == REPRODUCED  # type: ignore[arg-type]


def test_an_effect_absent_at_one_scale_refutes_claim_2(planted: pd.DataFrame) -> None:
    assert judge(with_ratio(planted, planted["selection"] == "ball(2)", 1.0))[2].verdict == NOT_REPRODUCED


def test_one_radius_or_none_is_nothing_to_compare() -> None:
    one = make_results(drop=lambda t: t["selection"].isin(["ball(2)", "ball(4)", "ball(6)", "apart(4)", "apart(6)"]))
    claims = judge(one)
    assert claims[2].verdict == claims[3].verdict == INCONCLUSIVE
    assert "fewer than two" in claims[2].note
    assert "fewer than two" in claims[3].note
    none = judge(make_results(drop=lambda t: t["selection"] != "all"))
    assert none[2].verdict == none[3].verdict == INCONCLUSIVE
    assert none[1].verdict == REPRODUCED


def test_only_points_defined_at_every_radius_count(planted: pd.DataFrame) -> None:
    table = planted.copy()
    odd = (table["point"] < 9) & table["selection"].isin(["ball(4)", "ball(6)", "ball(8)"])
    table.loc[odd, ["value", "ratio"]] = 5.0  # absurd, but undefined at the smallest radius
    table.loc[(table["point"] < 9) & (table["selection"] == "ball(2)"), ["value", "ratio"]] = np.nan
    claim = judge(table)[2]
    assert claim.effect < 0.01
    assert "90 undefined" in claim.note  # 3 points of 15 nets in 2 layers


def test_distances_that_leave_few_pairs_are_dropped_by_either_of_two_ways_to_know() -> None:
    table, unknown = make_results(), make_results(column_subsets=False)
    for claims in (judge(table), judge(unknown, image_shape=(8, 8))):
        assert "apart(8) dropped" in claims[3].note
        assert "apart(6)" not in claims[3].note
    # a larger image has pairs enough at this distance
    assert "dropped" not in judge(unknown, image_shape=(28, 28))[3].note


def test_distances_that_are_mostly_undefined_are_dropped(planted: pd.DataFrame) -> None:
    table = planted.copy()
    table.loc[(table["selection"] == "apart(6)") & (table["point"] % 2 == 0), ["value", "ratio"]] = np.nan
    kept = judge(table)[3]
    assert "apart(6)" not in kept.note  # exactly half
    table.loc[(table["selection"] == "apart(6)") & (table["point"] == 3), ["value", "ratio"]] = np.nan
    assert "apart(6) dropped" in judge(table)[3].note


@pytest.mark.parametrize(
    ("shape", "distance"),
    [((8, 8), 8), ((28, 28), 28), ((28, 28), 7), ((5, 9), 3.5), ((1, 4), 2), ((1, 1), 0), ((3, 4, 5), 2), ((2, 3, 3), 0)],
)
def test_share_of_pairs_against_a_list_of_all_pairs(shape: tuple[int, ...], distance: float) -> None:
    places = np.argwhere(np.ones(shape))[:, -2:]
    i, j = np.triu_indices(len(places), 1)
    apart = np.sqrt(((places[i] - places[j]) ** 2).sum(axis=1))
    expected = float((apart >= distance).mean()) if apart.size else 0.0
    assert pair_share(shape, distance) == pytest.approx(expected, abs=1e-15)


# --- claim 4


def test_width() -> None:
    assert judge(make_results(per_doubling=0.0, net_noise=0.003, point_noise=0.01))[4].verdict == NOT_REPRODUCED
    assert judge(make_results(per_doubling=-0.1))[4].verdict == NOT_REPRODUCED
    assert judge(make_results(per_doubling=0.01, net_noise=0.1))[4].verdict == INCONCLUSIVE
    alone = judge(make_results(widths=(16,), seeds=8))
    assert alone[4].verdict == INCONCLUSIVE
    assert "two widths" in alone[4].note
    assert [alone[i].verdict for i in (1, 2, 3, 5, 6)] == [REPRODUCED] * 5


# --- claim 5


def parts_of(claim: Claim, text: str) -> list[dict[str, Any]]:
    return [row for row in claim.parts if text in row["part"]]


def test_a_share_of_exactly_070_is_reproduced_and_of_1_is_not() -> None:
    exact: dict[str, Any] = {"widths": (8, 16), "net_noise": 0.0, "point_noise": 0.0}
    claim = judge(make_results(augmented_share=0.7, **exact))[5]
    assert (claim.verdict, claim.n, claim.p_value) == (REPRODUCED, 5, 1 / 32)
    assert claim.effect == pytest.approx(0.7)
    equal = judge(make_results(augmented_share=1.0, **exact))[5]
    assert equal.verdict == NOT_REPRODUCED
    assert equal.effect == pytest.approx(1.0)


def test_one_reading_is_primary_and_the_others_are_described() -> None:
    claim = judge(make_results(augmented_share=0.7, augmented_of="ratio", excess=1.0, per_doubling=0.0))[5]
    assert claim.verdict == NOT_REPRODUCED, "0.7 of the ratio 2 is 0.4 of its excess"
    assert claim.effect == pytest.approx(0.4, abs=0.05)
    literal = parts_of(claim, "augmented over standard, PR ratio, at equal epochs")
    assert [row["decides"] for row in literal] == [False, False]
    assert [row["effect"] for row in literal] == pytest.approx([0.7, 0.7], abs=0.02)


def test_equal_accuracy_is_a_reading_of_its_own() -> None:
    # the augmented nets reach 70% of the accuracy; at equal accuracy the standard nets have only 70% of their own excess
    table = make_results(augmented_share=1.0, augmented_of="excess", augmented_slowness=0.425, excess=0.6, point_noise=0.01)
    # the trained standard net is half way when it is as accurate: its excess is half, the share left is 2
    rows = parts_of(judge(table)[5], "excess of the PR ratio over 1, at equal accuracy")
    assert [row["effect"] for row in rows] == pytest.approx([2.0, 2.0], abs=0.1)


@pytest.mark.parametrize(
    ("knobs", "verdict", "decided_by"),
    [
        ({"augmented_share": 1.0}, NOT_REPRODUCED, "excess of the PR ratio over 1, at equal epochs"),
        ({"augmented_share": 1.2}, NOT_REPRODUCED, "excess of the PR ratio over 1, at equal epochs"),
        ({"augmented_share": 0.0, "net_noise": 0.001, "point_noise": 0.01}, NOT_REPRODUCED, "PR ratio of augmented nets"),
        ({"augmented_share": 0.84, "net_noise": 0.1}, INCONCLUSIVE, "excess of the PR ratio over 1, at equal epochs"),
    ],
)
def test_augmentation(knobs: dict[str, float], verdict: str, decided_by: str) -> None:
    claim = judge(make_results(**knobs))[5]  # type: ignore[arg-type]
    assert claim.verdict == verdict
    assert verdict in {row["verdict"] for row in parts_of(claim, decided_by)}


@pytest.mark.parametrize("only", ["standard", "augmented"])
def test_one_training(only: str) -> None:
    claims = judge(make_results(trainings=(only,), augmented_share=0.9))
    assert claims[5].verdict == INCONCLUSIVE
    assert "nothing to compare" in claims[5].note
    assert [claims[i].verdict for i in (1, 2, 3, 4, 6)] == [REPRODUCED] * 5
    assert ("judged on the augmented training" in claims[1].note) == (only == "augmented")


def test_the_other_training_decides_nothing_in_claims_1_to_4_and_6(found: dict[int, Claim]) -> None:
    claims = judge(make_results(trainings=("standard",)))
    mixed = make_results()
    mixed.loc[mixed["training"] == "augmented", ["value", "ratio"]] = 0.0
    spoilt = judge(mixed)
    for number in (1, 2, 3, 4, 6):
        assert spoilt[number].verdict == claims[number].verdict == REPRODUCED
        assert spoilt[number].effect == found[number].effect
    assert spoilt[5].verdict == NOT_REPRODUCED


def test_nets_without_a_partner_are_left_out_of_pairs_and_said() -> None:
    table = make_results(drop=lambda t: (t["training"] == "augmented") & (t["seed"] == 0))
    claim = judge(table)[5]
    assert claim.n == 4
    assert "4 seeds cannot reach p < 0.05; 5 can" in claim.note
    apart = judge(make_results(drop=lambda t: (t["training"] == "augmented") == (t["seed"] < 2)))[5]
    assert apart.verdict == INCONCLUSIVE
    assert "there are no pairs" in apart.note


def test_every_layer_and_common_step_is_in_the_details(found: dict[int, Claim]) -> None:
    steps = {(row["layer"], row["step"]) for row in found[5].parts if "step" in row}
    assert steps == {(layer, step) for layer in ("1", "3") for step in (10, 40, 100)}


# --- claim 6


@pytest.mark.parametrize(
    ("knobs", "verdict", "said"),
    [
        ({"zero_row_rise": 0.0}, NOT_REPRODUCED, ""),
        ({"prune_change": 1e-3}, NOT_REPRODUCED, "removal changes outputs in 15 of 15 nets"),
        ({"constant_units": 0}, REPRODUCED, "(b) is untestable: no unit is constant at every point in any net (try relu)"),
        ({"constant_units": 0, "zero_row_rise": 0.0}, NOT_REPRODUCED, "(b) is untestable"),
        ({"drop": lambda t: t["score"] == "prune_change"}, INCONCLUSIVE, "(b) is open"),
        ({"drop": lambda t: t["score"] == "zero_rows"}, INCONCLUSIVE, "missing: zero_rows"),
        ({"drop": lambda t: t["score"] == "constant_units"}, INCONCLUSIVE, "(b) is open"),
    ],
)
def test_constant_units(knobs: dict[str, object], verdict: str, said: str) -> None:
    claim = judge(make_results(**knobs))[6]  # type: ignore[arg-type]
    assert claim.verdict == verdict
    assert said in claim.note
    a, b = (next(iter(parts_of(claim, f"({part})")), None) for part in "ab")
    assert b is not None
    if knobs.get("constant_units") == 0:
        assert (b["untestable"], b["verdict"]) == (True, INCONCLUSIVE)
        assert a is not None
        assert a["verdict"] == verdict


def test_one_net_whose_outputs_change_refutes_claim_6_and_one_layer_of_zero_rows_is_enough(planted: pd.DataFrame) -> None:
    table = planted.copy()
    table.loc[(table["score"] == "zero_rows") & (table["layer"] == "3"), "value"] = 0.01
    assert judge(table)[6].verdict == REPRODUCED
    one = (table["score"] == "prune_change") & (table["run"] == "true-standard-16-2") & (table["step"] == 100)
    table.loc[one, "value"] = 2e-5
    assert judge(table)[6].verdict == NOT_REPRODUCED


# --- the control


@pytest.mark.parametrize(
    ("knobs", "control", "remarks"),
    [
        ({}, REPRODUCED, ["control_passes"]),
        ({"kl_rise": 0.0}, NOT_REPRODUCED, []),
        ({"seeds": 3}, INCONCLUSIVE, ["control_open"]),
    ],
)
def test_every_claim_says_whether_the_control_passes_it(
    planted: pd.DataFrame, found: dict[int, Claim], knobs: dict[str, Any], control: str, remarks: list[str]
) -> None:
    claims = judge(pd.concat([planted, make_results(labels="shuffled", trainings=("standard",), **knobs)], ignore_index=True))
    assert (claims[1].control, claims[1].remarks) == (control, remarks)
    assert ("passes it too" in claims[1].statement) == (control == REPRODUCED)
    assert claims[5].control == INCONCLUSIVE, "no augmented nets in the control"
    for number, claim in claims.items():
        assert (claim.verdict, claim.effect, claim.n) == (found[number].verdict, found[number].effect, found[number].n)


def test_the_control_alone_reproduces_nothing() -> None:
    claims = judge(make_results(labels="shuffled"))
    assert {claim.verdict for claim in claims.values()} == {INCONCLUSIVE}
    assert claims[1].control == REPRODUCED


def test_without_a_column_of_labels_all_are_true(planted: pd.DataFrame, found: dict[int, Claim]) -> None:
    assert judge(planted.drop(columns="labels")) == found


# --- seeds


def test_nets_of_a_seed_are_one_observation(planted: pd.DataFrame) -> None:
    """Three widths that say the same thing are no more evidence than one."""
    table = make_results(widths=(8, 16, 32), seeds=4)
    assert {claim.verdict for claim in judge(table).values()} == {INCONCLUSIVE}
    assert "4 seeds cannot reach p < 0.05; 5 can" in judge(table)[1].note


def test_settings_of_any_study_are_averaged_and_paired(planted: pd.DataFrame, found: dict[int, Claim]) -> None:
    """Two activations: the other one's nets have the same numbers, so nothing changes but the names."""
    other = planted.assign(run=("relu-" + planted["run"].astype(str)).astype("category"))
    both = pd.concat([planted, other], ignore_index=True).astype({"run": "category"})
    runs = both[["run", "width", "training", "seed", "labels"]].drop_duplicates("run")
    runs = runs.assign(activation=["relu" if str(run).startswith("relu") else "gelu" for run in runs["run"]])
    claims = judge(both, runs=runs, varied=["width", "training", "activation", "seed"])
    for number, claim in claims.items():
        assert (claim.verdict, claim.n) == (found[number].verdict, 5)
        assert claim.effect == pytest.approx(found[number].effect)
