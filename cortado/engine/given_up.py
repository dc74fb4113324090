"""Given up: what a stage undid of what earlier stages made, in sentences for the report."""

from dataclasses import dataclass

from torch import nn

from cortado.file.record_bytes import record_bytes
from cortado.network.weight import Weight, parameter_places
from cortado.parts.activations.quantizer import sites
from cortado.parts.forms.form import Form
from cortado.quantities import size_text

NAMED = 3
"""Weights that a sentence names."""


def given_up(before: nn.Module, after: nn.Module) -> list[str]:
    """Return a sentence for each kind of form that gave way to another, and for activations that have more bits now."""
    new = {weight.path: weight for weight in parameter_places(after)}
    pairs = [(old, new[old.path]) for old in parameter_places(before) if old.path in new]
    lost: dict[str, list[Loss]] = {}
    for old, now in pairs:
        gone = kinds(old.form) - kinds(now.form)
        if gone:
            loss = Loss.of(old, now)
            if loss.gone:
                lost.setdefault(" and ".join(sorted(loss.gone)), []).append(loss)
    return [sentence(name, losses) for name, losses in lost.items()] + wider_activations(before, after)


@dataclass(frozen=True)
class Loss:
    """A weight whose form gave way: the kinds that are gone after training too, and its bytes in the file before and now."""

    path: str
    gone: frozenset[str]
    before: int
    now: int

    @classmethod
    def of(cls, old: Weight, now: Weight) -> "Loss":
        forms = old.form.finalize(), now.form.finalize()
        gone = frozenset(kinds(forms[0]) - kinds(forms[1]) - zeros_kept(*forms))
        return cls(old.path, gone, *(record_bytes(form) if gone else 0 for form in forms))


def kinds(form: Form) -> set[str]:
    """Return the kinds of forms in a form, plain floats left out."""
    return {type(part).__name__ for part in form.modules() if isinstance(part, Form) and not part.only_floats}


def zeros_kept(old: Form, now: Form) -> set[str]:
    """Return the kinds of forms in `old` that keep zeros, if the weight has as many zeros now; cuts may move them."""
    support = old.support()
    if support is None or int(now.dense().count_nonzero()) > int(support.sum()):
        return set()
    return {type(part).__name__ for part in old.modules() if isinstance(part, Form) and part.support() is not None}


def sentence(name: str, losses: list[Loss]) -> str:
    """Return what was given up, and the bytes before and now."""
    before, now = (sum(getattr(loss, which) for loss in losses) for which in ("before", "now"))
    paths = [loss.path for loss in losses]
    several = f"{len(paths)} weights ({', '.join(paths[:NAMED])}{', ...' * (len(paths) > NAMED)}) give"
    who = f"{paths[0]} gives" if len(paths) == 1 else several
    return f"{who} up {name}: {size_text(now)} in the file, {size_text(before)} before."


def wider_activations(before: nn.Module, after: nn.Module) -> list[str]:
    """Return a sentence about activations that have more bits than before, or are no longer rounded."""
    modules, quantizers = dict(after.named_modules()), sites(after)
    wider = [
        f"{path} ({side}, {quantizer.bits()} bits)"
        for (path, side), quantizer in sites(before).items()
        if path in modules
        and ((path, side) not in quantizers or quantizers[path, side].bits() > quantizer.bits())
        and quantizer.finalize() is not None
    ]
    if not wider:
        return []
    few = f"{', '.join(wider[:NAMED])}{', ...' * (len(wider) > NAMED)}"
    return [f"{len(wider)} activations are no longer rounded as before, but to more bits or not at all: {few}."]
