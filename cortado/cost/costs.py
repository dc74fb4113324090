"""Costs: energy, emissions and money of hours on devices, of a training, and of a million inferences."""

from dataclasses import dataclass

from cortado.cost.devices import Device
from cortado.cost.estimate import Estimate, Rough, rough
from cortado.errors import BadValue

PUE = Estimate(1.5, 1.1, 1.7)
"""Energy of a data centre over that of its machines: large new ones 1.1; 1.58 was the mean of 2018 (Strubell et al., 2019)."""
CARBON = Estimate(0.43, 0.05, 0.8)
"""kg of CO2e for a kWh: the mean of the USA in 2018 (Strubell et al., 2019), between hydropower and coal."""
HOURS_PER_MS = 1 / 3.6e6
MILLION = 1e6


@dataclass(frozen=True)
class CostEstimate:
    """`energy` in kWh, `carbon` in kg of CO2e, `money` in $; None where a figure of the device is not known."""

    hours: Estimate
    energy: Estimate | None
    carbon: Estimate | None
    money: Estimate | None


@dataclass(frozen=True)
class Location:
    """Where devices stand: `pue`, the energy of the building over that of its machines, and `carbon` in kg CO2e a kWh."""

    pue: Estimate = PUE
    carbon: Estimate = CARBON

    def __post_init__(self) -> None:
        if self.pue.value < 1:
            raise BadValue(f"cost: a PUE is at least 1, got {self.pue.value:g}. At home or on a battery it is 1.")


def cost_of_hours(hours: Rough, device: Device, count: float = 1, place: Location | None = None) -> CostEstimate:
    """Return what `count` units of a device cost in so many hours: kWh = PUE x hours x watts / 1000.

    Strubell, Ganesh, McCallum, 2019. Raises BadValue for hours or counts below 0.
    """
    where = place or Location()
    if count <= 0:
        raise BadValue(f"cost: a count of devices is above 0, got {count:g}.")
    taken = rough(hours)
    energy = None if device.watts is None else where.pue * taken * device.watts * (count / 1000)
    carbon = None if energy is None else energy * where.carbon
    money = None if device.dollars is None else taken * device.dollars * count
    return CostEstimate(taken, energy, carbon, money)


def hours_of(operations: float, device: Device, count: float, utilisation: Rough) -> Estimate:
    """Return the hours in which devices make so many operations; `utilisation` is the share of their peak that they reach.

    Raises BadValue for a device without a peak, and a share outside 0..1.
    """
    share = rough(utilisation)
    if not 0 < share.value <= 1:
        raise BadValue(f"cost: utilisation is a share of the peak, above 0 and at most 1, got {share.value:g}.")
    return rough(operations / (device.need("peak") * count * 3600)) / share


def utilisation_of(operations: float, hours: float, device: Device, count: float) -> float:
    """Return the share of the peak of `count` devices that so many operations in so many hours are."""
    return operations / (device.need("peak") * count * 3600 * hours)


def language_model_operations(parameters: float, tokens: float) -> float:
    """Return the operations of a training: 6 for each parameter and token.  Kaplan et al., 2020."""
    return 6 * parameters * tokens


def cost_of_inferences(
    ms: Rough, device: Device, place: Location | None = None, count: float = MILLION
) -> CostEstimate:
    """Return what so many inferences of `ms` milliseconds cost, one after the other on one unit of a device."""
    return cost_of_hours(rough(ms) * (HOURS_PER_MS * count), device, 1, place)
