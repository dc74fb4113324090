"""Same: whether two weights, or the states of two modules, are equal to the last bit."""

import torch
from torch import Tensor, nn

from cortado.parts.forms.form import Form
from cortado.parts.forms.latent import Latent


def rounds_alike(before: Form | None, after: Form | None) -> bool:
    """Return whether two forms are rounded alike in training; None, a plain parameter, is not rounded."""
    return latents_of(before) == latents_of(after)


def latents_of(form: Form | None) -> list[tuple[str, dict[str, int]]]:
    """Return the class and facts of each latent form in a form."""
    parts = () if form is None else form.modules()
    return [(type(part).__qualname__, part.spec()) for part in parts if isinstance(part, Latent)]


def same_form(before: Form, after: Form) -> bool:
    """Return whether two forms have equal values and are rounded alike in training."""
    return same_bits(before.dense(), after.dense()) and rounds_alike(before, after)


def same_state(before: nn.Module, after: nn.Module) -> bool:
    """Return whether two modules have the same tensors under the same names."""
    one, other = before.state_dict(), after.state_dict()
    return list(one) == list(other) and all(
        not isinstance(value, Tensor) or same_bits(value, other[name]) for name, value in one.items()
    )


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are bitwise equal, with the same dtype and shape."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(bits_of(one), bits_of(other.to(one.device)))


def bits_of(value: Tensor) -> Tensor:
    """Return the bytes of a tensor."""
    return value.detach().contiguous().view(-1).view(torch.uint8) if value.numel() else value.detach()
