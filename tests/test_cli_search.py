"""The command line of the trial search."""

import json

import pytest

from cortado.engine.bundle import check_bundle
from tests.test_cli import cortado, here

__all__ = ["here"]
RECIPE = ("--recipe", "prune/weights keep=0.3..0.9 | quantize/weights bits=2..8")


def test_search_writes_trials_and_a_bundle_of_the_best(here):
    pytest.importorskip("optuna", reason="trials are drawn by optuna: pip install -e '.[search]'")
    words = ("search", "tiny_job:make", *RECIPE, "--limit", "score >= -100 %", "--out", "out")
    done = cortado(*words, "--trials", "3")
    assert done.exit_code == 0, done.output
    assert "<- taken" in done.output and "bundle: out" in done.output
    check_bundle(here / "out")
    sizes = [json.loads((here / f"out/trials/{n:03}/trial.json").read_text())["size_bytes"] for n in (1, 2, 3)]
    assert (here / "out/net.cortado").stat().st_size == min(sizes)
    refused = cortado(*words)
    assert refused.exit_code == 1 and "--resume" in refused.output
    assert cortado(*words, "--trials", "4", "--resume").exit_code == 0
    assert (here / "out/trials/004/trial.json").exists() and not (here / "out/trials/005").exists()
    assert cortado("verify", "out").exit_code == 0


def test_search_missed_is_exit_status_three(here):
    pytest.importorskip("optuna", reason="trials are drawn by optuna: pip install -e '.[search]'")
    done = cortado("search", "tiny_job:make", *RECIPE, "--limit", "size <= 10 B", "--trials", "2")
    assert done.exit_code == 3 and "missed" in done.output, done.output


def test_search_without_ranges_is_refused(here):
    done = cortado("search", "job.yaml")
    assert done.exit_code == 1 and "the recipe has no ranges" in done.output
    done = cortado("search", "tiny_job:make")
    assert done.exit_code == 1 and "no recipe" in done.output
