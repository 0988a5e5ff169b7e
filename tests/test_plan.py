"""What is decided before the first pixel is read, and what is refused or warned of then."""

import logging

import pytest
from shell_cases import edited

from miri_gpu import detector
from miri_gpu.plan import make_plan


@pytest.fixture
def planned(observation, caplog):
    """Plans a reduction, by default of two segments of six integrations with 12 groups."""
    caplog.set_level(logging.INFO, "miri_gpu")

    def plan(settings=None, segments=observation.segments):
        caplog.clear()
        partial = len(segments) == 1
        return make_plan(segments, "bright", settings, "numpy", observation.references, partial)

    return plan


def dropped(*integrations):
    return {"drop_integrations": {"skip": False, "drop_integrations": integrations}}


def warnings_in(caplog):
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


# --- groups


def test_groups_left_over_by_regrouping_are_mentioned(planned, caplog):
    planned({"regroup": {"skip": False, "n_groups": 5}})
    assert "the last 2 of 12 groups are left over" in caplog.text


def test_groups_are_counted_in_integrations_that_are_kept(planned):
    """Of the first one the recipe would leave a single group, but it is dropped."""
    settings = {"drop_groups": {"drop_groups_first_integration": list(range(10))}}
    plan = planned({**settings, **dropped(0)})
    assert plan.used_time_s(plan.segments[0]) == pytest.approx(10 * detector.FRAME_TIME_S)


@pytest.mark.parametrize(
    ("settings", "n_steps"),
    [
        ({"drop_groups": {"drop_groups": []}}, 11),
        ({}, 10),
        ({"drop_groups": {"drop_groups": [0, 1, -1]}}, 8),
        ({"drop_groups": {"drop_groups": [5]}}, 11),  # a gap does not shorten it
        ({"ramp_fit": {"firstgroup": 2, "lastgroup": 9}}, 7),
        ({"regroup": {"skip": False, "n_groups": 6}}, 4.5),  # 5 and 4 steps
        ({"lastframe": {"skip": False}, "firstframe": {"skip": False}}, 9),
        ({"rscd": {"skip": False, "group_skip": 3, "group_skip1": 5}}, 7),  # the first is not all
        ({"drop_groups": {"drop_groups_first_integration": [0, 1, 2, 3]}}, 10),
        ({"drop_groups": {"drop_groups_first_integration": [0, 1, 2]}, **dropped(1, 2, 3, 4)}, 8.5),
    ],
)
def test_the_time_over_which_ramps_are_fitted(planned, settings, n_steps):
    plan = planned(settings)
    assert plan.used_time_s(plan.segments[0]) == pytest.approx(n_steps * detector.FRAME_TIME_S)


# --- settings without effect


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"emicorr": {"algorithm": "joint", "use_n_cycles": 9}},
            [
                "emicorr.algorithm: without effect, emicorr.skip is true",
                "emicorr.use_n_cycles: without effect, emicorr.skip is true",
            ],
        ),
        ({"emicorr": {"skip": True}, "jump": {"rejection_threshold": 9}}, []),
        (
            {"likelihood": {"find_jumps": False}},
            ['likelihood.find_jumps: without effect, ramp_fit.algorithm is "OLS_C"'],
        ),
        ({"likelihood": {"find_jumps": False}, "ramp_fit": {"algorithm": "LIKELY"}}, []),
    ],
)
def test_settings_of_steps_that_do_not_run_are_warned_of(planned, caplog, settings, expected):
    planned(settings)
    said = [record.getMessage() for record in warnings_in(caplog)]
    assert said == [f"settings: {text}" for text in expected]


@pytest.mark.parametrize(
    ("cards", "idle"),
    [
        ({"USEDTIME": 1.6}, {"jump", "drop_groups", "ramp_fit", "likelihood"}),
        ({}, {"jump", "likelihood"}),  # the time of their photons follows from the groups used
    ],
)
def test_settings_of_ramps_are_warned_of_where_rates_enter(
    planned, observation, tmp_path, caplog, cards, idle
):
    def to_rates(hdus):
        hdus["SCI"].data = hdus["SCI"].data[:, 0].astype("f4")
        hdus["SCI"].header["BUNIT"] = "DN/s"
        hdus[0].header.update(cards)

    path = edited(observation.segments[0], tmp_path / "x_rateints.fits", change=to_rates)
    settings = {
        "jump": {"rejection_threshold": 9},
        "drop_groups": {"drop_groups": [0]},
        "ramp_fit": {"firstgroup": 1},
        "likelihood": {"find_jumps": False},
        "background_subtract": {"method": "col_wise"},
    }
    planned(settings, [path])
    said = [record.getMessage() for record in warnings_in(caplog)]
    assert all(
        text.endswith(": without effect, rate images enter after the ramp fit") for text in said
    )
    assert {text.split()[1].split(".")[0] for text in said} == idle


# --- jumps that cannot be found


def test_the_method_that_finds_jumps_is_that_of_the_integrations_kept(planned, caplog):
    """Six would be enough for sigma clipping, five are not."""
    planned({"jump": {"minimum_sigclip_groups": 6, "rejection_threshold": 1.5}, **dropped(1)})
    methods = [r.args[-1] for r in caplog.records if r.msg.endswith("by the method %r")]
    assert methods == ["single_pass", "sigma_clipping"]


def test_a_threshold_that_clipping_cannot_reach_is_warned_of(planned, caplog):
    planned({"jump": {"minimum_sigclip_groups": 5}})
    expected = "among 6 differences nothing deviates by more than 2.7 standard deviations"
    assert expected in caplog.text and "15 finds no jump" in caplog.text
    planned({"jump": {"minimum_sigclip_groups": 5, "rejection_threshold": 1.5}})
    assert not warnings_in(caplog)


@pytest.mark.parametrize(("threshold", "warns"), [(6.9, False), (7.1, True)])
def test_clipping_of_all_differences_together_is_judged_by_their_number(
    planned, caplog, threshold, warns
):
    """Eight in each of six integrations: groups 0 to 4 give four, groups 6 to 10 the others."""
    jump = {"minimum_sigclip_groups": 5, "only_use_ints": False, "rejection_threshold": threshold}
    planned({"jump": jump, "drop_groups": {"drop_groups": [5, -1]}})
    assert bool(warnings_in(caplog)) is warns


@pytest.mark.parametrize(("only_use_ints", "n_values"), [(False, 10), (True, 1)])
def test_clipping_of_a_single_integration_is_warned_of(
    planned, observation, tmp_path, caplog, only_use_ints, n_values
):
    def shorten(hdus):
        hdus["SCI"].data = hdus["SCI"].data[:1]
        hdus["INT_TIMES"].data = hdus["INT_TIMES"].data[:1]

    path = edited(observation.segments[0], tmp_path / "one_uncal.fits", change=shorten, INTEND=1)
    jump = {"minimum_sigclip_groups": 1, "only_use_ints": only_use_ints}
    planned({"jump": jump}, [path])
    assert f"among {n_values} differences nothing deviates by more than" in caplog.text


def test_too_few_groups_for_jumps_are_warned_of(planned, caplog):
    planned({"drop_groups": {"drop_groups": list(range(10))}})
    assert "too few groups to find jumps" in caplog.text


# --- outliers that cannot be found


def test_a_window_higher_than_the_detector_is_one_of_all_rows(planned, caplog):
    cleaning = {"window_heights": [2**40], "outlier_threshold": 1e3}
    planned({"clean_outliers": cleaning})
    [record] = warnings_in(caplog)
    assert "in windows of 416 rows nothing deviates by 1000" in record.getMessage()
