"""Backbone: the feature maps of any network, level by level."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork
from cortado.running.eval_mode import eval_mode


class CallMaps:
    """The maps of one call, from the taps to their backbone.  An object of its own, so that all of them keep the same one."""

    def __init__(self) -> None:
        self.maps: dict[str, Tensor] = {}


class Tap(nn.Module):
    """Stands around a module whose output is a level, and keeps that output until the backbone takes it."""

    def __init__(self, inner: nn.Module, kept: CallMaps, name: str) -> None:
        super().__init__()
        self.inner, self.kept, self.name = inner, kept, name

    def forward(self, *inputs: Any) -> Any:
        made = self.inner(*inputs)
        self.kept.maps[self.name] = made
        return made


class TakenOut(nn.Module):
    """Stands where a module was whose output no level needs: returns its first input."""

    def forward(self, first: Any, *others: Any) -> Any:
        return first


class Backbone(nn.Module):
    """The outputs of a network's modules at `paths`, in that order: maps (N, C, H, W).

    >>> levels = Backbone(mobilenet_v1_folded(), ["features.10", "features.22", "features.26"])

    The network is used as it is, so pass a copy of one that you keep. Modules that run only after the last level are taken
    out. `example` is one picture, by default zeros (1, 3, 64, 64). Raises BadNetwork for a path without a module, one that
    does not run, or an output that is no map.
    """

    def __init__(self, network: nn.Module, paths: Sequence[str], example: Tensor | None = None) -> None:
        super().__init__()
        self.network, self.paths, self.kept = network, tuple(paths), CallMaps()
        modules = dict(network.named_modules())
        for path in self.paths:
            if not path or path not in modules:
                raise BadNetwork(f"backbone: {type(network).__name__} has no module {path!r}. Name one of its modules.")
            put(network, path, Tap(modules[path], self.kept, path))
        self.take_out(picture_for(network) if example is None else example)

    def take_out(self, example: Tensor) -> None:
        """Take out what runs only after the last level.  Raises BadNetwork if a level is missing, or no map."""
        before = self.run_before(example)
        # The last one first: what an earlier one gives may not fit a later one.
        for path in reversed(never_ran(self.network, before)):
            module = self.network.get_submodule(path)
            put(self.network, path, TakenOut())
            try:
                self.run_before(example)
            except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):
                # What still runs needs it.
                put(self.network, path, module)

    def run_before(self, example: Tensor) -> set[nn.Module]:
        """Return the modules that run before the last level is made.  Raises BadNetwork if a level is missing, or no map."""
        before: set[nn.Module] = set()

        def note(module: nn.Module, inputs: Any) -> None:
            if len(self.kept.maps) < len(self.paths):
                before.add(module)

        hooks = [one.register_forward_pre_hook(note) for one in self.network.modules()]
        try:
            with eval_mode(self.network), torch.no_grad():
                maps = self(example)
        finally:
            for hook in hooks:
                hook.remove()
        for path, one in zip(self.paths, maps, strict=True):
            if not isinstance(one, Tensor) or one.dim() != 4:
                raise BadNetwork(
                    f"backbone: the output of {path} is no map (N, C, H, W). Name a module whose output is one."
                )
        return before

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Return the maps of all levels for pictures (N, C, H, W)."""
        self.network(pictures)
        missing = [path for path in self.paths if path not in self.kept.maps]
        if missing:
            raise BadNetwork(f"backbone: {missing[0]} did not run. Name modules that the network runs.")
        maps = [self.kept.maps[path] for path in self.paths]
        # The network holds no activations between calls.
        self.kept.maps.clear()
        return maps


def never_ran(network: nn.Module, before: set[nn.Module]) -> list[str]:
    """Return the paths of the modules with weights of which no part ran, outermost first."""
    found: list[str] = []
    for path, module in network.named_modules():
        inside = any(path.startswith(f"{one}.") for one in found)
        if (
            path
            and not inside
            and not before.intersection(module.modules())
            and next(module.parameters(), None) is not None
        ):
            found.append(path)
    return found


class FeatureStages(nn.Module):
    """A backbone that is a chain: the output of each stage is a level, and the input of the next one."""

    def __init__(self, stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Return the maps of all levels for pictures (N, C, H, W)."""
        maps = [pictures]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]


def as_stages(chain: nn.Sequential, ends: Sequence[int]) -> FeatureStages:
    """Return a chain of modules as stages, each up to one of `ends`; what comes after the last one is left out."""
    modules = list(chain.children())
    return FeatureStages([nn.Sequential(*modules[low:high]) for low, high in zip([0, *ends[:-1]], ends, strict=True)])


def level_shapes(backbone: nn.Module, example: Tensor) -> list[tuple[int, int, int]]:
    """Return channels, height and width of each level's map for pictures like `example` (N, C, H, W).  Raises BadNetwork."""
    with eval_mode(backbone), torch.no_grad():
        maps = backbone(example)
    if not isinstance(maps, (list, tuple)) or not all(isinstance(one, Tensor) and one.dim() == 4 for one in maps):
        raise BadNetwork(
            f"backbone: {type(backbone).__name__} must return a list of maps (N, C, H, W), got {type(maps).__name__}. "
            "Wrap a network as Backbone(network, paths)."
        )
    return [(int(one.shape[1]), int(one.shape[2]), int(one.shape[3])) for one in maps]


def picture_for(network: nn.Module, height: int = 64, width: int = 64) -> Tensor:
    """Return one picture of zeros (1, 3, `height`, `width`) on the network's device."""
    parameter = next(network.parameters(), torch.zeros(0))
    return torch.zeros(1, 3, height, width, device=parameter.device, dtype=parameter.dtype)


def put(network: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module at a path."""
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, module)
