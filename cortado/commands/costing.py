"""Costing: the command cost, which estimates energy, emissions and money, and fits power laws to runs."""

import csv
from pathlib import Path
from typing import Any

import click

from cortado.commands.given import in_words
from cortado.cost.costs import (
    CARBON,
    MILLION,
    PUE,
    CostEstimate,
    Location,
    cost_of_hours,
    cost_of_inferences,
    hours_of,
    language_model_operations,
)
from cortado.cost.devices import Device, device_by_name, known_devices, read_devices
from cortado.cost.estimate import read_estimate
from cortado.cost.power_law import PowerLaw, fit_compute_law, fit_power_law
from cortado.cost.text import cost_table
from cortado.errors import BadValue
from cortado.report.pages.served import served_times
from cortado.report.report import read_report
from cortado.table import aligned

GIVEN = "Give one of: a folder of compress, --hours, --operations, --parameters with --tokens, --ms, --fit or --list."


@click.command("cost")
@click.argument("folder", required=False)
@click.option("--device", default="core", show_default=True, help="What it runs on: a row of the table (--list).")
@click.option("--count", default=1.0, show_default=True, help="So many of them.")
@click.option("--hours", help="A training of so many hours: 79, 79 +- 5 % or 70..90.")
@click.option("--operations", type=float, help="A training of so many operations; a multiply-add is two.")
@click.option("--parameters", type=float, help="A training of a language model: 6 operations a parameter and token.")
@click.option("--tokens", type=float, help="The tokens that it sees.")
@click.option(
    "--utilisation", default="0.2..0.5", show_default=True, help="Share of the device's peak that is reached."
)
@click.option("--ms", help="A million inferences of so many milliseconds each.")
@click.option("--watts", help="Power of one device, instead of the table's.")
@click.option("--dollars", help="$ for an hour of one device, instead of the table's.")
@click.option(
    "--pue",
    default=f"{PUE.low:g}..{PUE.high:g}",
    show_default=True,
    help="Energy of the building over that of machines.",
)
@click.option("--carbon", default=f"{CARBON.low:g}..{CARBON.high:g}", show_default=True, help="kg of CO2e for a kWh.")
@click.option("--devices", type=click.Path(), help="A YAML table of your own devices.")
@click.option(
    "--fit", type=click.Path(), help="A CSV file of runs, with columns loss and size, or parameters, tokens, loss."
)
@click.option(
    "--at", type=float, help="With --fit of sizes: the loss to expect of a run of this size, with its interval."
)
@click.option("--list", "listed", is_flag=True, help="Show the table of devices.")
@in_words
def cost_command(
    folder: str | None, fit: str | None, at: float | None, listed: bool, devices: str | None, **given: Any
) -> None:
    """Estimate energy, CO2e and money of a training, or of a million inferences before and after compression (FOLDER).

    All figures have 95 % intervals, from those of the inputs. With --fit, fit a power law to runs.
    """
    own = read_devices(devices) if devices else {}
    if listed:
        click.echo(devices_text({**known_devices(), **own}))
        return
    if fit:
        click.echo(fit_text(Path(fit), at))
        return
    if at is not None:
        raise BadValue("cost: --at is the size of a run that --fit predicts. Give --fit runs.csv, or leave it out.")
    device = changed_device(device_by_name(given["device"], own), given)
    place = Location(
        PUE if given["pue"] is None else read_estimate(given["pue"], "PUE"),
        CARBON if given["carbon"] is None else read_estimate(given["carbon"], "carbon"),
    )
    click.echo(cost_table(asked_costs(folder, device, place, given)))


def asked_costs(folder: str | None, device: Device, place: Location, given: dict[str, Any]) -> dict[str, CostEstimate]:
    """Return the costs that the options ask for.  Raises BadValue for none, and for several."""
    asked = [name for name in ("hours", "operations", "parameters", "ms") if given[name] is not None]
    asked += ["folder"] if folder else []
    if len(asked) != 1:
        raise BadValue(f"cost: got {' and '.join(asked) or 'nothing to cost'}. {GIVEN}")
    if folder:
        return served_costs(Path(folder), device, place)
    if given["ms"] is not None:
        return {"a million inferences": cost_of_inferences(read_estimate(given["ms"], "ms"), device, place)}
    if given["hours"] is not None:
        hours = read_estimate(given["hours"], "hours")
    else:
        operations = given["operations"]
        if operations is None:
            if given["tokens"] is None:
                raise BadValue("cost: --parameters needs --tokens, the tokens that the language model sees.")
            operations = language_model_operations(given["parameters"], given["tokens"])
        hours = hours_of(operations, device, given["count"], read_estimate(given["utilisation"], "utilisation"))
    return {"training": cost_of_hours(hours, device, given["count"], place)}


def served_costs(folder: Path, device: Device, place: Location) -> dict[str, CostEstimate]:
    """Return what a million inferences cost before and after, from the times in a bundle's report."""
    found = served_times(read_report(folder / "report.json"))
    if found is None:
        raise BadValue(f"cost: the report in {folder} has no times. Compress with --measure-in onnxruntime.")
    return {
        f"a million inferences, {what}": cost_of_inferences(ms, device, place, found.threads * MILLION)
        for what, ms in (("original", found.before), ("compressed", found.after))
    }


def changed_device(device: Device, given: dict[str, Any]) -> Device:
    """Return the device with the figures of the command line."""
    figures = {what: read_estimate(given[what], what) for what in ("watts", "dollars") if given[what] is not None}
    return Device(
        device.name, peak=device.peak, note=device.note, **{"watts": device.watts, "dollars": device.dollars} | figures
    )


def devices_text(devices: dict[str, Device]) -> str:
    """Return the table of devices."""

    def shown(one: Any) -> str:
        return "" if one is None else f"{one.low:g}..{one.high:g}" if not one.exact else f"{one.value:g}"

    rows = [
        (name, shown(one.watts), "" if one.peak is None else f"{one.peak:g}", shown(one.dollars), one.note)
        for name, one in devices.items()
    ]
    return aligned([("device", "watts", "operations/s", "$/h", ""), *rows], "<")


def fit_text(file: Path, at: float | None = None) -> str:
    """Return the power law of the runs in a CSV file, and the loss to expect of a run of size `at`."""
    columns = read_columns(file)
    if {"parameters", "tokens", "loss"} <= set(columns):
        if at is not None:
            raise BadValue(
                f"cost: --at needs runs with one column size, and {file} has parameters and tokens. Leave it out."
            )
        law = fit_compute_law(columns["parameters"], columns["tokens"], columns["loss"])
        spent = 6 * max(n * d for n, d in zip(columns["parameters"], columns["tokens"], strict=True))
        rows = [("operations", "parameters", "tokens", "loss")]
        for factor in (1, 10, 100):
            n, d = law.best(spent * factor)
            rows.append((f"{spent * factor:.3g}", f"{n:.3g}", f"{d:.3g}", f"{law.loss(n, d):.4g}"))
        return (
            f"loss = {law.floor:.4g} + {law.a:.4g} x parameters^-{law.alpha:.3g} + {law.b:.4g} x tokens^-{law.beta:.3g}; "
            f"relative error {law.error:.2g}\n\nWhat to train with so many operations:\n{aligned(rows)}"
        )
    if not {"size", "loss"} <= set(columns):
        raise BadValue(
            f"cost: {file} needs the columns size and loss, or parameters, tokens and loss; got {', '.join(columns)}."
        )
    one = fit_power_law(columns["size"], columns["loss"])
    low, high = one.exponent_interval
    expected = "" if at is None else expected_text(one, at)
    return (
        f"loss = {one.floor:.4g} + {one.factor:.4g} x size^-{one.exponent:.3g}; exponent {low:.3g} to {high:.3g}, "
        f"floor {one.floor_interval[0]:.4g} to {one.floor_interval[1]:.4g} (95 %); relative error {one.error:.2g}{expected}"
    )


def expected_text(law: PowerLaw, size: float) -> str:
    """Return the loss to expect of a run of a size, as a line."""
    low, high = law.interval(size)
    return f"\nsize {size:.4g}: loss {law.loss(size):.4g}, {low:.4g} to {high:.4g} (95 %)"


def read_columns(file: Path) -> dict[str, list[float]]:
    """Return the columns of a CSV file with a head.  Raises BadValue for other content."""
    try:
        with file.open(encoding="utf8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        return {name: [float(row[name]) for row in rows] for name in (rows[0] if rows else {})}
    except (OSError, ValueError, TypeError, KeyError, UnicodeDecodeError) as error:
        raise BadValue(
            f"cost: {file} is no CSV file of numbers with a line of heads ({type(error).__name__}: {error})."
        ) from error
