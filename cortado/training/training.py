"""Training: how to train, the knobs that everything that trains shares."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cortado.errors import BadValue
from cortado.knobs.knob import check_knobs, knob

OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("cosine", "constant", "step")
HOOKS = ("none", "fp16", "bf16", "powersgd", "ternary")


@dataclass(frozen=True)
class Training:
    """How to train.  In a recipe its names are written flat, `finetune epochs=3 lr=0.01`, or as `training: {epochs: 3}`.

    >>> Training(epochs=3, lr=0.01)

    In data-parallel training each process has its share of every batch: batch norms normalise over that share, and their
    running statistics are averaged at the end. Raises BadValue for a value outside its range.
    """

    epochs: float = knob(1.0, low=0.0, help="passes over the training data")
    lr: float = knob(1e-3, low=0.0, help="learning rate")
    optimizer: str | Callable[..., Any] = knob(
        "adam", one_of=OPTIMIZERS, help="a name, or a function from parameter groups to an Optimizer"
    )
    schedule: str | Callable[..., Any] = knob(
        "cosine", one_of=SCHEDULES, help="a name, or a function from training progress (0..1) to a factor of lr"
    )
    warmup: float = knob(0.0, low=0.0, high=1.0, help="share of the training over which lr rises from 0")
    momentum: float = knob(0.9, low=0.0, high=1.0, help="momentum of sgd")
    decay: float = knob(0.0, low=0.0, help="weight decay (L2)")
    batch: int | None = knob(None, low=1, help="batch size; the task's if none is given")
    clip: float | None = knob(
        None, low=0.0, help="largest gradient norm; if none is given, 5 for sgd with kept statistics"
    )
    average: float = knob(0.0, low=0.0, high=1.0, help="last share of the training over which weights are averaged")
    precision: str = knob(
        "auto", one_of=("auto", "float32", "bfloat16"), help="of matrix products; auto picks the fast one"
    )
    statistics: str = knob(
        "moving", one_of=("moving", "kept"), help="of batch norms: updated, or kept for short recoveries"
    )
    recorded: bool = knob(False, help="record the training step as a CUDA graph; Python must not branch on data")
    cache: str = knob(
        "auto",
        one_of=("auto", "memory", "file", "kept", "live"),
        help="teachers' outputs, without augmentation: in memory, in a temporary float16 file, kept for later trainings in "
        "Cortado's cache folder, or live at each step",
    )
    teacher_sees: str = knob(
        "same",
        one_of=("same", "original"),
        help="varied inputs as the network sees them, or as they are, once for all epochs; answers move with a Move",
    )
    hook: str = knob("none", one_of=HOOKS, help="how gradients travel between processes under torchrun")
    shard: bool = knob(False, help="split the parameters over the processes, for networks that do not fit into one")

    def __post_init__(self) -> None:
        check_knobs(self, "training")
        if self.teacher_sees == "original" and self.cache == "live":
            raise BadValue(
                "training: cache must not be live with teacher_sees: original, for which a teacher answers once. Drop one."
            )
        if self.shard and self.hook != "none":
            raise BadValue(
                f"training: hook must be none with shard, whose gradients torch sends by itself, got {self.hook}. Drop one."
            )
