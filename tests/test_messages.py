"""The words of our errors: where, what, got, way out."""

import re

import pytest
import torch
from torch import nn

from cortado import errors
from cortado.engine.bundle import check_bundle
from cortado.engine.compress import compress
from cortado.engine.job import read_job
from cortado.engine.recipe import read_recipe
from cortado.errors import BadFile, BadNetwork, BadRecipe, BadTask, BadValue, CortadoError, NothingChanged
from cortado.methods.finetune import Finetune
from cortado.methods.prune.weights import PruneWeights
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.network.view import View
from cortado.parts.blocks.bypass import Bypass
from cortado.report.report import read_report
from cortado.task.limits import read_limit, read_limits
from cortado.task.task import Data, Metric, Task
from tests.laws.tiny_nets import BY_NAME

MLP = BY_NAME["mlp"]


def broken(value: float) -> nn.Module:
    network = MLP.make()
    with torch.no_grad():
        network[0].weight[0, 0] = value
    return network


def task_with(**changes) -> Task:
    parts = {name: getattr(MLP.task(), name) for name in ("train", "validation", "test")}
    return Task(**(parts | changes))


def bad_score(outputs, targets):
    return outputs.mean()


CASES = {
    "knob out of range": (lambda: PruneWeights(keep=1.5), BadValue, r"prune/weights: keep must lie in 0\.\.1, got 1\.5\. It means: share of weights kept"),
    "knob of another type": (lambda: QuantizeWeights(bits="four"), BadValue, r"quantize/weights: bits must be a whole number, got 'four'"),
    "knob of few words": (lambda: Finetune(optimizer="adm"), BadValue, r"tune: optimizer must be one of adam, adamw, sgd, got 'adm'"),
    "mistyped method": (lambda: read_recipe("prune/wieghts"), BadRecipe, r"no method is called 'prune/wieghts'\. Did you mean: prune/weights"),
    "mistyped knob": (lambda: read_recipe("prune/weights kep=0.3"), BadRecipe, r"stage 1 \(prune/weights\): no knob 'kep'; did you mean 'keep'\?"),
    "mistyped key": (lambda: read_recipe({"stags": []}), BadRecipe, r"recipe: no key 'stags'; did you mean 'stages'\?"),
    "word without value": (lambda: read_recipe("prune/weights 0.3"), BadRecipe, r"stage 1 \(prune/weights\): '0\.3' is not key=value"),
    "bad value in a recipe": (lambda: read_recipe("finetune | prune/weights keep=7"), BadValue, r"recipe, stage 2: prune/weights: keep must lie in"),
    "empty recipe": (lambda: read_recipe([]), BadRecipe, r"it has no stages\. Give at least one"),
    "empty line": (lambda: read_recipe("finetune | "), BadRecipe, r"stage 2: it is empty\. Write, for example"),
    "stage with two names": (lambda: read_recipe([{"finetune": {}, "release": {}}]), BadRecipe, r"a stage is a name or one name with its knobs"),
    "recipe of another type": (lambda: read_recipe(3), BadRecipe, r"a recipe is a file, a text, a list or a Recipe, got int"),
    "recipe file that is missing": (lambda: read_recipe("nowhere.yaml"), BadRecipe, r"nowhere\.yaml"),
    "class that is no method": (lambda: read_recipe("torch.nn:Linear"), BadRecipe, r"'torch\.nn:Linear' is not a Method"),
    "limit without sense": (lambda: read_limit("small"), BadValue, r"'small' is not a limit\. Write, for example"),
    "limit the wrong way": (lambda: read_limit("size >= 3 KB"), BadValue, r"has the wrong direction\. Write size <="),
    "limit of nothing": (lambda: read_limit("size <= 0 KB"), BadValue, r"asks for 0 bytes"),
    "two limits of a kind": (lambda: read_limits(["size <= 3 KB", "size <= 4 KB"]), BadValue, r"size is limited twice"),
    "unit unknown": (lambda: read_limit("size <= 3 parsecs"), BadValue, r"has no known unit of size, got 'parsecs'\. Known: B, KB"),
    "NaN weights": (lambda: compress(broken(float("nan")), MLP.task(), "quantize/weights"), BadNetwork, r"0\.weight holds NaN or infinite values\. Load or train"),
    "infinite weights": (lambda: compress(broken(float("inf")), MLP.task(), "quantize/weights"), BadNetwork, r"0\.weight holds NaN or infinite"),
    "NaN outputs": (lambda: compress(MLP.make(), task_with(validation=(torch.full((4, 12), torch.nan), torch.zeros(4).long())), "finetune"), BadNetwork, r"outputs contain NaN"),
    "data of another shape": (lambda: compress(MLP.make(), task_with(validation=(torch.zeros(4, 7), torch.zeros(4).long())), "finetune"), BadNetwork, r"cannot take inputs of shape \[\(4, 7\)\]"),
    "no data": (lambda: Data(torch.zeros(0, 3), torch.zeros(0)), BadTask, r"the data are empty, got 0 samples"),
    "data of two lengths": (lambda: Data(torch.zeros(2, 3), torch.zeros(3)), BadTask, r"differ in length, got 2 and 3\. Pass one target"),
    "data of another type": (lambda: Data.of([1]), BadTask, r"got list\. Wrap tensors as cortado\.Data"),
    "score that does not score samples": (lambda: compress(MLP.make(), task_with(metric=Metric(each=bad_score)), "finetune"), BadTask, r"must return one number per sample, got shape \(\)"),
    "pattern without a match": (lambda: compress(MLP.make(), MLP.task(), "prune/weights where=conv*"), BadValue, r"stage 1 \(prune/weights\): where: 'conv\*' matches no weight"),
    "nothing changed": (lambda: compress(MLP.make(), MLP.task(), "prune/weights keep=1.0"), NothingChanged, r"stage 1 \(prune/weights\): it needs more entries alive than it keeps, and Sequential has none under where: '\*'\. Leave the stage out, or lower keep"),
    "loss without end": (lambda: compress(MLP.make(), MLP.task(), "finetune lr=1e30 optimizer=sgd epochs=3"), BadNetwork, r"stage 1 \(finetune\): finetune: the loss of epoch \d is (nan|inf), in float32 with moving batch norm statistics\. Lower lr"),
    "module that is not there": (lambda: View(MLP.make(), MLP.make(), None).wrap("conv9", Bypass()), BadNetwork, r"there is no module 'conv9' to wrap\. Its modules"),
    "resume without a folder": (lambda: compress(MLP.make(), MLP.task(), "finetune", resume=True), BadNetwork, r"resume needs the folder"),
    "job that is not there": (lambda: read_job("no_such_module:make"), BadRecipe, r"'no_such_module:make' cannot be loaded"),
    "job file that is missing": (lambda: read_job("nowhere.yaml"), BadRecipe, r"nowhere\.yaml"),
    "bundle that is none": (lambda: check_bundle("nowhere"), BadFile, r"nowhere has no checksums\.txt\. Pass the folder"),
    "report that is none": (lambda: read_report("nowhere.json"), BadFile, r"nowhere\.json is not a report of cortado"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize("case", list(CASES))
def test_error_says_where_what_and_the_way_out(case):
    attempt, kind, words = CASES[case]
    with pytest.raises(kind, match=words) as caught:
        attempt()
    text = str(caught.value)
    assert isinstance(caught.value, CortadoError)
    assert re.match(r"^[a-z][\w/. ,()]*: ", text), text
    assert text.rstrip()[-1] in ".?!)", text


def test_every_error_is_one_of_the_tree_that_its_file_draws():
    drawn = set(re.findall(r"[A-Z]\w+(?= {2,}\w| *$)|(?<=-- )[A-Z]\w+", errors.__doc__))
    kinds = {
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, CortadoError)
    }
    assert kinds <= drawn | {"CortadoError"}
    assert all(getattr(errors, name).__doc__ for name in kinds)
