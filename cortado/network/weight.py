"""Weight: one weight of a network and all its places, and the factors of a low-rank one."""

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor, nn

from cortado.parts.forms.attach import attach, attached_names, dense_form, form_of
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.form import Form
from cortado.parts.part import own_modules


class Weight:
    """One weight of a network and all the places that share it; edit it with `map_values` and `set_form`."""

    def __init__(self, path: str, places: list[tuple[nn.Module, str]]) -> None:
        """`path` is the first name ("conv1.weight"); `places` are the layers that own it, with its name in each."""
        self.path, self.places = path, places
        self.touched: set[str] = set()
        """Where a view records the weights written."""

    @property
    def layer(self) -> nn.Module:
        """Return the first layer that owns it."""
        return self.places[0][0]

    @property
    def layer_path(self) -> str:
        return self.path.rpartition(".")[0]

    @property
    def title(self) -> str:
        """Return its name for messages, in terms that `where` accepts."""
        return self.path

    @property
    def name(self) -> str:
        """Return its name in the layer, usually "weight"."""
        return self.places[0][1]

    @property
    def form(self) -> Form:
        """Return its form; a Dense copy when it has none."""
        form = form_of(*self.places[0])
        return dense_form(getattr(self.layer, self.name)) if form is None else form

    def dense(self) -> Tensor:
        """Return its value, detached."""
        return getattr(self.layer, self.name).detach()

    @property
    def shape(self) -> torch.Size:
        form = form_of(*self.places[0])
        return getattr(self.layer, self.name).shape if form is None else form.shape

    @property
    def real(self) -> bool:
        """Return whether its values are real floats, which forms require."""
        return form_of(*self.places[0]) is not None or bool(getattr(self.layer, self.name).is_floating_point())

    def map_values(self, fn: Callable[[Tensor], Form]) -> None:
        """Apply `fn` (Tensor -> Form) to the float values of the present form."""
        self.set_form(self.form.map_values(fn))

    def select(self, mask: Tensor) -> None:
        """Keep the entries that `mask` (bool, shape of the weight) has, in their form; in plain floats if it cannot say so."""
        self.set_form(self.form.select(mask) or Dense(self.dense()).select(mask))

    def set_form(self, form: Form) -> None:
        """Attach `form` to the weight in every place that shares it."""
        self.touched.add(self.path)
        for layer, name in self.places:
            attach(layer, name, form)


class Factor(Weight):
    """One factor of a low-rank weight.  Methods that prune or train single entries use a factor's entries."""

    def __init__(self, whole: Weight, route: tuple[str, ...], number: int) -> None:
        """`route` leads from the form of the whole weight to the factor, `number` counts the factors in order."""
        path = f"{whole.layer_path}.{number}.{whole.name}".removeprefix(".")
        super().__init__(path, whole.places)
        self.whole, self.route = whole, route

    @property
    def title(self) -> str:
        return f"a factor of {self.whole.path}"

    @property
    def layer_path(self) -> str:
        return self.whole.layer_path

    @property
    def form(self) -> Form:
        return reduce(lambda form, name: getattr(form.factors(), name), self.route, self.whole.form)

    def dense(self) -> Tensor:
        return self.form.dense().detach()

    @property
    def shape(self) -> torch.Size:
        return self.form.shape

    def set_form(self, form: Form) -> None:
        self.whole.set_form(with_factor(self.whole.form, self.route, form))


def with_factor(form: Form, route: tuple[str, ...], part: Form) -> Form:
    """Return a low-rank form with another factor at the end of a route."""
    factors = form.factors()
    if not route or factors is None:
        return part
    inner = with_factor(getattr(factors, route[0]), route[1:], part)
    return factors.remade(inner, factors.last) if route[0] == "first" else factors.remade(factors.first, inner)


def routes_of(form: Form) -> list[tuple[str, ...]]:
    """Return the routes to all factors of a form that methods may change, in running order; one empty route without any."""
    factors = form.factors()
    if factors is None:
        return [()]
    names = ("first",) if factors.fixed else ("first", "last")
    return [(name, *rest) for name in names for rest in routes_of(getattr(factors, name))]


def parameter_places(network: nn.Module) -> list[Weight]:
    """Return every parameter of a network, in a form or not, tied ones once, in module order."""
    found: dict[int, Weight] = {}
    for path, layer in own_modules(network).items():
        for name in layer_parameters(layer):
            attached = form_of(layer, name)
            key = id(layer._parameters[name] if attached is None else attached)
            place = f"{path}.{name}" if path else name
            found.setdefault(key, Weight(place, [])).places.append((layer, name))
    return list(found.values())


def layer_parameters(layer: nn.Module) -> list[str]:
    """Return the names of a layer's own parameters, those in forms in their original order."""
    free = [name for name, value in layer._parameters.items() if value is not None]
    return [*attached_names(layer), *free] if attached_names(layer) else free


def tensor_of(weight: Weight) -> Tensor:
    """Return a tensor that belongs to this weight alone: the parameter, or the first one of its form."""
    own = weight.layer._parameters.get(weight.name)
    if own is not None and not isinstance(weight, Factor):
        return own
    return next(iter((*weight.form.parameters(), *weight.form.buffers())))
