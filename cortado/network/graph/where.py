"""Choose weights by pattern: "conv*", "not fc3", "*.bias"."""

from collections.abc import Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase

from cortado.errors import BadValue


def read_patterns(where: str) -> list[tuple[bool, str]]:
    """Split "conv*, not conv1" into [(True, "conv*"), (False, "conv1")].  Raises BadValue when it is empty."""
    found = []
    for part in where.split(","):
        words = part.split()
        if not words or len(words) > 2 or (len(words) == 2 and words[0] != "not"):
            raise BadValue(f'where: {where!r} is not a list of patterns. Write, for example, "conv*, not conv1".')
        found.append((len(words) == 1, words[-1]))
    return found


def names_parameter(pattern: str, parameter: str) -> bool:
    """Return whether the pattern's last part is the parameter's own name in full ("*.bias" for "fc1.bias")."""
    return pattern.rpartition(".")[2] == parameter.rpartition(".")[2]


def matches(pattern: str, parameter: str, dimensions: int) -> bool:
    """Return whether one pattern matches a parameter.

    A pattern of layers matches their matrices and kernels (two dimensions or more); a vector, such as a bias, is
    matched only by a pattern that spells its name. Inputs of torch's parametrizations also match under the name of
    the weight they make.
    """
    return any(takes(pattern, name, dimensions) for name in (parameter, stands_for(parameter)))


def takes(pattern: str, name: str, dimensions: int) -> bool:
    """Return whether one pattern matches this name."""
    if names_parameter(pattern, name):
        return fnmatchcase(name, pattern)
    return dimensions >= 2 and fnmatchcase(name.rpartition(".")[0], pattern)


def stands_for(parameter: str) -> str:
    """Return conv1.weight for conv1.parametrizations.weight.original; otherwise the parameter's own name."""
    layer, inside, rest = parameter.partition(".parametrizations.")
    name, _, part = rest.partition(".")
    return f"{layer}.{name}" if inside and part.startswith("original") else parameter


def original_first(parameters: Iterable[str]) -> str:
    """Return advice if torch's parametrizations compute a weight from some of these parameters, else ""."""
    made = any(stands_for(name) != name for name in parameters)
    return " Remove the parametrizations first: torch.nn.utils.parametrize.remove_parametrizations." if made else ""


def choose(where: str, parameters: dict[str, int]) -> list[str]:
    """Return the parameters (name -> number of dimensions) that `where` selects, in their order.

    A parameter is selected when some pattern matches it and no "not" pattern does; with only "not" patterns, all
    others are selected. Raises BadValue, with similar names, for a pattern that matches nothing.
    """
    patterns = read_patterns(where)
    wanted = [pattern for positive, pattern in patterns if positive] or ["*"]
    unwanted = [pattern for positive, pattern in patterns if not positive]
    for pattern in wanted + unwanted:
        if not any(matches(pattern, name, size) for name, size in parameters.items()):
            layers = list(dict.fromkeys(stands_for(name).rpartition(".")[0] for name in parameters))
            near = get_close_matches(pattern, [*layers, *parameters], n=3) or layers[:6]
            raise BadValue(f"where: {pattern!r} matches no weight of this network. Similar names: {', '.join(near)}.")
    return [
        name
        for name, size in parameters.items()
        if any(matches(pattern, name, size) for pattern in wanted)
        and not any(matches(pattern, name, size) or fnmatchcase(name, pattern) for pattern in unwanted)
    ]
