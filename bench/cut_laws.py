"""cut_laws: channels that are zero may go - 40 % of every free group, in every network of the zoo; Torch-Pruning beside it.

Each network has random weights, every path alive, and its own process with one thread, 30 seconds of the processor and 10 GiB
of memory. What is found is kept line by line under bench/cache/cut_laws, so that an interrupted run goes on; a new VERSION
checks everything again.

Cortado: groups are found; of each free exact one 60 % of the units are kept, drawn at random (of two or four units half);
the cut network must answer fresh inputs as the uncut one does when all entries of the removed units are zero, to 1e-4 of the
largest output, with the number of parameters predicted. As a control the network as it was must answer otherwise. Groups
whose removal changes a mean or a norm cannot be exact: they are cut in a second copy, along with all others, which must run
and have the number of parameters predicted. A network without any exact group counts as not exact.

Torch-Pruning: its MagnitudePruner, 40 % of every layer, used as its own examples do (bench/rivals/magnitude.py). It runs when
the network answers and has fewer parameters. What it removed is zeroed in a copy, for the same comparison; it cuts through
norms as well, so its exactness is counted only over networks in which Cortado found all groups free and exact. Group norms and
local response norms may be among these: those that are not exact are listed by name.
"""

from collections.abc import Callable
from statistics import median
from typing import Any

from bench.result import CACHE, row
from bench.rivals import magnitude
from bench.zoo import law
from bench.zoo.apart import all_checked
from bench.zoo.catalog import entries

VERSION = "1"
"""Of both checks; changed when they are, or what they check."""
FOLDER = CACHE / "cut_laws"

Finding = dict[str, Any]


def run() -> list[dict[str, Any]]:
    """All rows."""
    zoo = entries()
    ours = all_checked(zoo, law.checked, FOLDER / "cortado.jsonl", VERSION)
    theirs = all_checked(zoo, magnitude.checked, FOLDER / "torch_pruning.jsonl", VERSION)
    return [*own_rows(ours), *rival_rows(ours, theirs), *family_rows(ours, theirs), *left_over(ours, theirs)]


def runs(found: Finding) -> bool:
    """Whether both cuts were made and the networks answer."""
    cuts = [found.get("cut_of_all"), found.get("cut_of_exact")]
    return found.get("free", 0) > 0 and not any(cut and "error" in cut for cut in cuts)


def exact(found: Finding) -> bool:
    """Whether the outputs are those of the zeroed network, while the untouched network gives others."""
    one = found.get("cut_of_exact") or {}
    return one.get("difference", 1.0) <= law.SAME and one.get("control", 0.0) > law.ALIVE


def predicted(found: Finding) -> bool:
    """Whether every cut left the number of parameters that was predicted."""
    cuts = [cut for cut in (found.get("cut_of_all"), found.get("cut_of_exact")) if cut]
    return bool(cuts) and all(cut.get("parameters", -1) == cut.get("predicted", -2) for cut in cuts)


def declared(found: Finding) -> bool:
    """Whether the attributes of every layer are the widths of its tensors after every cut."""
    cuts = [cut for cut in (found.get("cut_of_all"), found.get("cut_of_exact")) if cut]
    return bool(cuts) and all(cut.get("contradictions", ["unknown"]) == [] for cut in cuts)


def rival_runs(found: Finding) -> bool:
    """Whether the rival's network answers with fewer parameters."""
    return found.get("runs", False) and found["parameters"] < found["parameters_before"]


def rival_exact(found: Finding) -> bool:
    """Whether what the rival removed could as well have been zero."""
    return rival_runs(found) and found.get("difference", 1.0) <= law.SAME and found.get("control", 0.0) > law.ALIVE


def percent(part: list[Any], whole: list[Any]) -> float | None:
    """The share of one list in another."""
    return round(100 * len(part) / len(whole), 1) if whole else None


def removed(found: list[Finding], cut: str) -> float | None:
    """The mean percentage of parameters that a cut of ours removed."""
    shares = [1 - f[cut]["parameters"] / f["parameters"] for f in found if f.get(cut) and "error" not in f[cut]]
    return round(100 * sum(shares) / len(shares), 1) if shares else None


def own_rows(ours: list[Finding]) -> list[dict[str, Any]]:
    """Cortado's figures and their bars."""
    works, right = [f for f in ours if runs(f)], [f for f in ours if exact(f)]
    timed = [f for f in ours if "find_s" in f]
    seconds = [f["find_s"] + f.get("cut_s", 0.0) for f in timed]
    busy = [f["find_processor_s"] + f.get("cut_processor_s", 0.0) for f in timed]
    counted = [f for f in ours if predicted(f)]
    timm = [f for f in ours if f["family"].startswith("timm")]
    return [
        row("networks", len(ours), "networks", bar=120, better="higher"),
        row("networks of timm among them", len(timm), "networks", bar=60, better="higher"),
        row("run after the cut of every free group", percent(works, ours), "%", bar=100, better="higher"),
        row("exact", percent(right, ours), "%", bar=97, better="higher"),
        row("number of parameters as predicted", percent(counted, ours), "%", bar=100, better="higher"),
        row("attributes of all layers follow", percent([f for f in ours if declared(f)], ours), "%", 100, "higher"),
        row("groups found and cut, median of the processor's time", median(busy), "s", bar=3.0),
        row("groups found and cut, longest of the processor's time", max(busy), "s"),
        row("groups found and cut, median on the clock (the machine was shared)", median(seconds), "s"),
        row("worst difference of an exact network", max(f["cut_of_exact"]["difference"] for f in right), "of output"),
        row("least difference of an untouched network", min(f["cut_of_exact"]["control"] for f in right), "of output"),
        row("parameters removed with the exact groups, mean", removed(ours, "cut_of_exact"), "%"),
        row("parameters removed with all free groups, mean", removed(ours, "cut_of_all"), "%"),
    ]


def rival_rows(ours: list[Finding], theirs: list[Finding]) -> list[dict[str, Any]]:
    """Torch-Pruning's figures on the same networks."""
    works = [f for f in theirs if rival_runs(f)]
    names = {f["name"] for f in works}
    normless = {f["name"] for f in ours if f.get("free") and not f["inexact"] and not f["refused"]}
    fair = [f for f in works if f["name"] in normless]
    shares = [100 * (1 - f["parameters"] / f["parameters_before"]) for f in works]
    busy = [f["cut_processor_s"] for f in works]
    return [
        row("Torch-Pruning: networks that are smaller and run after the cut", percent(works, theirs), "%"),
        row(
            "Torch-Pruning: of those where no norm is cut, exact",
            percent([f for f in fair if rival_exact(f)], fair),
            "%",
        ),
        row(
            "Cortado on these",
            percent([f for f in ours if exact(f) and f["name"] in {g["name"] for g in fair}], fair),
            "%",
        ),
        row("Torch-Pruning: parameters removed where it runs, mean", round(sum(shares) / max(1, len(shares)), 1), "%"),
        row("Cortado: with all free groups there", removed([f for f in ours if f["name"] in names], "cut_of_all"), "%"),
        row("Torch-Pruning: median of the processor's time where it runs", median(busy) if busy else None, "s"),
    ]


def family_rows(ours: list[Finding], theirs: list[Finding]) -> list[dict[str, Any]]:
    """How many of each family are exact, and how many run with either."""
    rows = []
    for family in dict.fromkeys(f["family"] for f in ours):
        mine, other = ([f for f in found if f["family"] == family] for found in (ours, theirs))
        for what, having, test in (
            ("exact", mine, exact),
            ("run", mine, runs),
            ("run with Torch-Pruning", other, rival_runs),
        ):
            rows.append(row(f"{family}, {len(mine)}: {what}", counted(having, test), "networks"))
    return rows


def sound(found: Finding) -> bool:
    """Whether nothing is wrong with a network."""
    return runs(found) and exact(found) and predicted(found) and declared(found)


def counted(found: list[Finding], test: Callable[[Finding], bool]) -> int:
    return sum(map(test, found))


def left_over(ours: list[Finding], theirs: list[Finding]) -> list[dict[str, Any]]:
    """Every network of which something is wrong, and what; then those that the rival does not cut, by kind of error."""
    rows = [row(f"{f['name']}: {trouble(f)}", None, "") for f in ours if not sound(f)]
    reasons: dict[str, list[str]] = {}
    for found in theirs:
        if not rival_runs(found):
            reasons.setdefault(found.get("error", "nothing was cut").partition(":")[0], []).append(found["name"])
        elif not rival_exact(found):
            reasons.setdefault("runs, but not exact (norms over channels included)", []).append(found["name"])
    for reason, names in reasons.items():
        rows.append(row(f"Torch-Pruning, {reason}: {', '.join(names)}", len(names), "networks"))
    return rows


def trouble(found: Finding) -> str:
    """What is wrong with one network."""
    for part in (found, found.get("cut_of_exact") or {}, found.get("cut_of_all") or {}):
        if "error" in part:
            return part["error"][:160]
    if not found.get("exact_groups"):
        return f"no exact group; {found['free']} others; {'; '.join(found['frozen'][:2])[:160]}"
    one = found["cut_of_exact"]
    return (
        f"differs by {one['difference']:.2g}, untouched by {one['control']:.2g}; {one['parameters']} parameters, "
        f"{one['predicted']} predicted; attributes of {one['contradictions']} do not follow"
    )
