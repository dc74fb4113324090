"""Text: estimates of energy, emissions, money and time for people."""

from cortado.cost.costs import CostEstimate
from cortado.cost.estimate import Estimate
from cortado.table import aligned

ENERGY = (("GWh", 1e6), ("MWh", 1e3), ("kWh", 1.0), ("Wh", 1e-3), ("mWh", 1e-6))
CARBON = (("kt", 1e6), ("t", 1e3), ("kg", 1.0), ("g", 1e-3), ("mg", 1e-6))
HOURS = (("years", 8760.0), ("days", 24.0), ("h", 1.0), ("min", 1 / 60), ("s", 1 / 3600))


def estimate_text(estimate: Estimate | None, units: tuple[tuple[str, float], ...], before: str = "") -> str:
    """Return "1.5 kWh (1.1 to 2.2)", in the unit that suits the value; "" where nothing is known."""
    if estimate is None:
        return ""
    unit, size = next((one for one in units if estimate.value >= one[1]), units[-1])
    ends = (estimate.value, estimate.low, estimate.high)
    value, low, high = (before + number_text(part / size) for part in ends)
    around = "" if estimate.exact else f" ({low} to {high})"
    return f"{value} {unit}".rstrip() + around


def number_text(value: float) -> str:
    """Return three figures, and all before the point."""
    return f"{value:,.0f}" if value >= 999.5 else f"{value:.3g}"


def energy_text(estimate: Estimate | None) -> str:
    """Return energy in the unit that suits it."""
    return estimate_text(estimate, ENERGY)


def money_text(estimate: Estimate | None) -> str:
    """Return money in $."""
    return estimate_text(estimate, (("", 1.0),), "$")


def cost_table(costs: dict[str, CostEstimate]) -> str:
    """Return one row for each cost: its name, time, energy, emissions, money, with their 95 % intervals."""
    heads = ("", "time", "energy", "CO2e", "money")
    rows = [
        (
            name, estimate_text(one.hours, HOURS), energy_text(one.energy) or "unknown",
            estimate_text(one.carbon, CARBON) or "unknown", money_text(one.money) or "unknown",
        )
        for name, one in costs.items()
    ]  # fmt: skip
    return aligned([heads, *rows])
