"""cost: uncertainty in products and sums, the published tables, fits of laws whose figures are known, and what is refused."""

import math

import numpy as np
import pytest
from click.testing import CliRunner

from cortado.cli import main
from cortado.cost.costs import (
    Location,
    cost_of_hours,
    cost_of_inferences,
    hours_of,
    language_model_operations,
    utilisation_of,
)
from cortado.cost.devices import Device, device_by_name, known_devices, read_devices
from cortado.cost.estimate import Estimate, read_estimate, rough
from cortado.cost.power_law import fit_compute_law, fit_power_law
from cortado.cost.text import energy_text, money_text
from cortado.errors import BadValue

THERE = Location(rough(1.58), rough(0.954 * 0.45359237))


def run(*words):
    return CliRunner().invoke(main, ["cost", *map(str, words)])


def test_uncertainty_of_a_product_is_that_of_drawn_factors():
    one, other = Estimate(3.0, 2.0, 4.5), Estimate(10.0, 8.0, 12.5)
    generator = np.random.default_rng(0)

    def drawn(estimate):
        return estimate.value * np.exp(generator.normal(size=200_000) * math.log(estimate.high / estimate.value) / 1.96)

    low, high = np.quantile(drawn(one) * drawn(other), (0.025, 0.975))
    made = one * other
    assert made.value == 30 and made.low == pytest.approx(low, rel=0.01) and made.high == pytest.approx(high, rel=0.01)
    assert (made / other).value == pytest.approx(3) and (made / made).low < 1


def test_sums_add_variances_and_exact_numbers_stay_exact():
    both = Estimate(10, 7, 13) + Estimate(20, 16, 24)
    assert (both.value, both.low, both.high) == (30, 25, 35)
    assert (rough(2) * 3).exact and (2 * Estimate(1, 0.5, 2)).high == 4 and (1 + rough(2)).value == 3


@pytest.mark.parametrize(
    ("text", "ends"),
    [("250", (250, 250, 250)), ("250 +- 20 %", (250, 200, 300)), ("100..400", (200, 100, 400)), (7, (7, 7, 7))],
)
def test_estimates_are_read_as_people_write_them(text, ends):
    found = read_estimate(text, "power")
    assert (found.value, found.low, found.high) == pytest.approx(ends)


@pytest.mark.parametrize("text", ["-1", "0..5", "much", "5..3", "5 +- 200 %", "nan", ""])
def test_what_is_no_positive_estimate_is_refused(text):
    with pytest.raises(BadValue, match="power must be positive"):
        read_estimate(text, "power")


@pytest.mark.parametrize(
    ("watts", "hours", "energy", "pounds"),
    [(1415.78, 12, 27, 26), (1515.43, 84, 201, 192), (517.66, 336, 275, 262), (1515.43, 274_120, 656_347, 626_155)],
)
def test_published_energy_and_emissions_come_out(watts, hours, energy, pounds):
    """Strubell, Ganesh, McCallum, 2019: kWh and pounds of CO2e."""
    found = cost_of_hours(hours, Device("host", rough(watts)), 1, THERE)
    assert round(found.energy.value) == energy
    assert round(found.carbon.value / 0.45359237) == pounds and found.money is None


def test_a_network_that_takes_half_the_time_costs_half():
    device = device_by_name("core")
    before, after = (cost_of_inferences(ms, device) for ms in (2.0, 1.0))
    assert before.energy.value == pytest.approx(2 * after.energy.value)
    assert before.hours.value == pytest.approx(2e6 / 3.6e6)
    assert before.money.value == pytest.approx(before.hours.value * device.dollars.value)


def test_operations_become_hours_and_back():
    device = device_by_name("a100-40gb")
    operations = language_model_operations(1.3e9, 26e9)
    hours = hours_of(operations, device, 256, 0.21)
    assert hours.value == pytest.approx(6 * 1.3e9 * 26e9 / (256 * 312e12 * 0.21) / 3600)
    assert utilisation_of(operations, hours.value, device, 256) == pytest.approx(0.21)


def test_figures_that_a_device_lacks_are_named(tmp_path):
    table = tmp_path / "mine.yaml"
    table.write_text("board: {watts: 5..7}\n")
    own = read_devices(table)
    with pytest.raises(BadValue, match="no peak for board"):
        hours_of(1e15, device_by_name("board", own), 1, 0.5)
    assert cost_of_hours(1, own["board"]).money is None
    assert device_by_name("board", own).watts.high == 7


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("board: {watt: 5}", "unknown field watt"), ("board: {watts: -5}", "watts of board must be positive"),
        ("board: {watts: 0}", "watts of board must be above 0"), ("- 1", "one device a line"), ("board: 5", "unknown field 5"),
        ("{", "cannot be read"), ("board: {peak: 0}", "must be above 0"),
    ],
)  # fmt: skip
def test_tables_with_faults_are_refused(rows, says, tmp_path):
    table = tmp_path / "mine.yaml"
    table.write_text(rows)
    with pytest.raises(BadValue, match=says):
        read_devices(table)


def test_every_row_of_the_table_says_where_it_comes_from():
    assert all(one.note and (one.watts or one.peak) for one in known_devices().values())


def test_power_law_of_exact_runs_is_found():
    sizes = [1e4, 3e4, 1e5, 3e5, 1e6, 1e7]
    law = fit_power_law(sizes, [0.5 + 40 * size**-0.35 for size in sizes])
    assert law.exponent == pytest.approx(0.35, abs=0.02) and law.floor == pytest.approx(0.5, abs=0.03)
    assert law.loss(1e8) == pytest.approx(0.5 + 40 * 1e8**-0.35, rel=0.02) and law.error < 1e-3


def test_interval_of_the_exponent_holds_the_true_one_most_times():
    sizes, generator, held = np.geomspace(1e3, 1e6, 12), np.random.default_rng(3), 0
    for seed in range(12):
        losses = 30 * sizes**-0.4 * np.exp(0.05 * generator.normal(size=12))
        low, high = fit_power_law(sizes, losses, seed).exponent_interval
        held += low - 1e-9 <= 0.4 <= high
    assert 8 <= held <= 12


def test_compute_law_of_exact_runs_and_its_best_size_are_found():
    pairs = [(n, d) for n in (1e6, 1e7, 1e8) for d in (1e8, 1e9, 1e10)]
    losses = [1.7 + 400 * n**-0.34 + 410 * d**-0.28 for n, d in pairs]
    law = fit_compute_law(*zip(*pairs, strict=True), losses)
    assert (law.alpha, law.beta, law.floor) == pytest.approx((0.34, 0.28, 1.7), abs=0.02)
    n, d = law.best(1e20)
    assert 6 * n * d == pytest.approx(1e20)
    around = [law.loss(n * factor, d / factor) for factor in (0.8, 1.0, 1.25)]
    assert around[1] == min(around)


@pytest.mark.parametrize(
    ("sizes", "losses", "says"),
    [
        ([1, 2, 3], [3, 2, 1], "at least 4 runs"), ([1, 2, 3, 4], [1, 2, 3, -1], "each loss must be a number above 0"),
        ([1, 2, 3, 4], [1, 2, 3, 4], "does not fall"), ([1, 2, 3, 4, 5], [4, 3, 2, 1], "different numbers"),
    ],
)  # fmt: skip
def test_runs_without_a_law_are_refused(sizes, losses, says):
    with pytest.raises(BadValue, match=says):
        fit_power_law(sizes, losses)


def test_text_has_the_unit_that_suits():
    assert energy_text(Estimate(0.0056, 0.002, 0.01)) == "5.6 Wh (2 to 10)"
    assert money_text(rough(2_490_000)) == "$2,490,000" and energy_text(None) == ""


def test_a_larger_run_lies_in_the_interval_nearly_as_often_as_it_says():
    generator, inside, trials = np.random.default_rng(1), 0, 8
    sizes = np.geomspace(1e3, 1e5, 7)

    def drawn(size):
        return (0.8 + 30 * size**-0.4) * np.exp(0.01 * generator.standard_normal(np.shape(size)))

    for seed in range(trials):
        law = fit_power_law(sizes, drawn(sizes), seed)
        low, high = law.interval(3e5)
        assert low < law.loss(3e5) < high
        inside += low <= float(drawn(3e5)) <= high
    assert inside >= trials - 1


def test_an_exact_law_leaves_no_doubt_about_a_larger_run():
    law = fit_power_law([1e2, 1e3, 1e4, 1e5], [3 * size**-0.5 for size in (1e2, 1e3, 1e4, 1e5)])
    assert law.interval(1e6) == pytest.approx((3e-3, 3e-3), rel=1e-3)
    with pytest.raises(BadValue, match="each size must be a number above 0"):
        law.interval(0)


def test_command_says_what_to_expect_of_a_larger_run(tmp_path):
    runs, both = tmp_path / "runs.csv", tmp_path / "both.csv"
    runs.write_text("size,loss\n" + "".join(f"{size},{3 * size**-0.5}\n" for size in (100, 1000, 10000, 100000)))
    assert "size 1e+06: loss 0.003, 0.003 to 0.003 (95 %)" in run("--fit", runs, "--at", "1e6").output
    both.write_text("parameters,tokens,loss\n1,1,2\n")
    for words, says in (
        (("--fit", both, "--at", 5), "--at needs runs with one column size"),
        (("--at", 5), "Give --fit runs.csv"),
    ):
        found = run(*words)
        assert found.exit_code == 1 and says in found.output


def test_command_costs_trainings_inferences_and_fits(tmp_path):
    done = run("--hours", 79.2, "--device", "v100", "--count", 64, "--watts", 188.15, "--pue", 1.58)
    assert done.exit_code == 0 and "1.51 MWh" in done.output
    assert "1.27 days" in run("--ms", 110).output and "a million inferences" in run("--ms", 110).output
    runs = tmp_path / "runs.csv"
    runs.write_text("size,loss\n" + "\n".join(f"{size},{2 * size**-0.5}" for size in (10, 100, 1000, 10000)))
    assert "size^-0.5" in run("--fit", runs).output
    assert "core" in run("--list").output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "nothing to cost"), (["--hours", 1, "--ms", 2], "hours and ms"), (["--parameters", 1e6], "needs --tokens"),
        (["--ms", 1, "--device", "a100"], "Near:"), (["--hours", 1, "--pue", 0.5], "PUE is at least 1"),
        (["--ms", 1, "--count", -1, "--hours", 1], "hours and ms"), (["--hours", 1, "--count", 0], "above 0"),
        (["--operations", 1e18, "--device", "core"], "no peak for core"),
        (["--operations", 1e18, "--device", "h100", "--utilisation", 2], "at most 1"), (["nowhere"], "report.json"),
        (["--fit", "nowhere.csv"], "no CSV file"),
    ],
)  # fmt: skip
def test_command_says_what_is_wrong(words, says):
    done = run(*words)
    assert done.exit_code == 1 and says in done.output.replace("\n", " ")
