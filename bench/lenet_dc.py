"""Deep Compression on MNIST: both LeNets by their recipes, the file coded as in the paper and by our coder.

Plain networks are trained here. The recipe was chosen on the 5,000 validation images alone; the 10,000 test images are
looked at once for each seed, by the file that was read back. KB are 1000 bytes; the paper's 27 and 44 KB are whole
files too. The stream of Deep Compression is that of cortado.file.deep_compression: gaps and codes under Huffman codes,
each with the gap width that serves it best, tables, shared values, biases and head inside.
"""

from pathlib import Path

from torch import nn

from bench.networks import trained
from bench.result import CACHE, row
from cortado.engine.compress import compress, test
from cortado.file.artifact import decode, encode
from cortado.report.report import Compared, Report
from cortado.task.task import Task

SEEDS = [0, 1, 2]
SEEDS_OF = {"LeNet-300-100": 3, "LeNet-5": 1}
RECIPES = Path(__file__).parents[1] / "recipes"
NETWORKS = {
    # recipe, paper's bytes, errors of the paper before and after
    "LeNet-300-100": ("deep_compression_lenet_300_100.yaml", 27_000, 1.64, 1.58),
    "LeNet-5": ("deep_compression_lenet_5.yaml", 44_000, 0.80, 0.74),
}
SAVED_BAR = 15.0


def file_rows(says: str, network: nn.Module, original: nn.Module, paper_bytes: int) -> list[dict]:
    """Bytes of the same network by both coders."""
    body, ours = (encode(network, original, codec) for codec in ("deep_compression", "smallest"))
    floats = sum(value.numel() * value.element_size() for value in original.state_dict().values())
    saved = 100 * (1 - len(ours) / len(body))
    return [
        row(f"{says}: whole file, stream of Deep Compression", len(body), "B", paper_bytes, source_value=paper_bytes),
        row(f"{says}: floats over that file", floats / len(body), "x", source_value=floats / paper_bytes),
        row(f"{says}: whole file, our coder", len(ours), "B"),
        row(f"{says}: saved by our coder on the same network", saved, "%", SAVED_BAR, "higher"),
    ]


def error_rows(says: str, compared: Compared, before: float, after: float) -> list[dict]:
    """Test error before and after.  The paired interval tells how far the difference is from chance."""
    original, small = 100 - compared.original, 100 - compared.compressed
    low, high = compared.low, compared.high
    more = {} if low is None or high is None else {"low": -high, "high": -low}
    return [
        row(f"{says}: test error, plain", original, "%", source_value=before),
        row(f"{says}: test error, compressed (bar: plain)", small, "%", original, source_value=after),
        row(f"{says}: difference", small - original, "%", source_value=round(after - before, 2), **more),
    ]


def choice_rows(says: str, report: Report) -> list[dict]:
    """What the recipe was chosen by: the choice error before, after pruning and at the end; and the weights left."""
    pruned = [stage for stage in report.stages if stage.round][-1]
    return [
        row(f"{says}: weights left", 100 * pruned.nonzero, "%", source_value=8),
        row(f"{says}: choice error, plain", 100 - report.original_validation, "%"),
        row(f"{says}: choice error, pruned and trained", 100 - pruned.score, "%"),
        row(f"{says}: choice error, compressed", 100 - report.stages[-1].score, "%"),
    ]


def rows_of(name: str, seed: int) -> tuple[list[dict], Compared]:
    """One network, one seed."""
    recipe, paper_bytes, before, after = NETWORKS[name]
    original, task = trained(name, seed)
    # Finished stages are kept, so that an interrupted bench goes on where it was.
    network, report = compress(
        original, blind(task), RECIPES / recipe, folder=CACHE / "lenet_dc" / f"{name}_{seed}", resume=True
    )
    found = test(original, decode(encode(network, original, "deep_compression"), original), task)
    says = f"{name}, seed {seed}"
    rows = file_rows(says, network, original, paper_bytes) + error_rows(says, found, before, after)
    return rows + choice_rows(says, report), found


def blind(task: Task) -> Task:
    """The task without its test images: the run's own test is on the validation images."""
    return task.for_trial()


def run(seeds: list[int]) -> list[dict]:
    """Both networks; LeNet-5, whose epochs are slow, from one seed."""
    rows = []
    for name, count in SEEDS_OF.items():
        errors = []
        for seed in seeds[:count]:
            found, compared = rows_of(name, seed)
            rows += found
            errors.append(compared)
        mean = sum(one.original - one.compressed for one in errors) / len(errors)
        rows.append(row(f"{name}: mean difference of test error over {len(errors)} seeds", mean, "%", 0.0))
    return rows
