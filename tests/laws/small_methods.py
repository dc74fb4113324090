"""Every method under methods/, with its defaults but for the length of trainings."""

from typing import Any

from cortado.engine.recipe import known_methods, method_class
from cortado.knobs.nested import knobs_of
from cortado.methods.method import Method

SHORT = {"epochs": 0.5, "finish": 0.25}
"""Knobs that say how long a method trains; a method that has them takes these."""

MUST_HAVE: dict[str, dict[str, Any]] = {
    "prune/units": {},
    "prune/blocks": {"keep": 0.5},
    "factorize/separable": {"keep": 0.6},
    "share/products": {"values": 2, "width": 3},
    "quantize/second_order": {"rows": 300, "rounds": 1},
    "quantize/rate_distortion": {"images": 32, "slopes": 16},
    "quantize/adaround": {"rows": 300, "steps": 10},
    "distill/made_up": {"copies": 1},
    "conditional/experts": {"experts": 4, "k": 2, "steps": 20, "width": 8},
    "distill/hints": {"hint_epochs": 0.5},
    "conditional/gates": {"start": 0.5},
    "conditional/thresholds": {"lose": 60.0, "seen": True},
    "quantize/ptq_search": {"images": 16, "steps": "match_moments, equalize"},
}
"""Knobs without which a method makes no sense, or takes long."""


def small(name: str, **knobs: Any) -> Method:
    """The method called `name`, with short trainings; `knobs` besides."""
    kind = method_class(name)
    fields = knobs_of(kind)
    short = {key: value for key, value in SHORT.items() if key in fields}
    return kind(**(short | MUST_HAVE.get(name, {}) | knobs))


ALL_METHODS = tuple(
    name for name in known_methods() if name not in ("allocate", "prune/widths", "student", "conditional/cascade")
)
"""All but two of the planner's, which tests/planner has: bytes are another number in each network, and times on each machine;
and those that put another network in place, which are states that the others meet."""
