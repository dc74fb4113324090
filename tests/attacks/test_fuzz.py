"""A few hundred of the mutated files of `bench fuzz`, over all that it has: every one is refused or a network."""

import random
import zlib
from collections import Counter

import pytest
import torch

import cortado.parts.blocks
from bench.fuzz import Gate, Sound, mutated, outcome, sound_files
from cortado.file.artifact import decode
from cortado.file.contents import read_contents
from cortado.file.keys import own_kinds
from cortado.parts.blocks.block import Block


@pytest.fixture(scope="module")
def sources() -> list[Sound]:
    return sound_files()


def test_sound_files_have_all_that_a_file_can_say(sources):
    contents = [read_contents(one.body, [Gate]) for one in sources]
    assert {one.version for one in contents} == {1, 2, 3, 4}
    newest = [one for one in contents if one.version == 4]
    kinds = {part.kind for one in newest for part in one.blocks.parts}
    assert kinds == {*own_kinds(cortado.parts.blocks, Block).values(), Gate}
    assert any(one.blocks and one.edits.numbers and one.quantizers for one in newest)
    assert any(one.edits.loose for one in newest)
    assert "maskedlatent(learnedstep)" in {schema.text() for one in newest for schema in one.schemas}
    assert all(isinstance(decode(one.body, one.network, [Gate]), torch.nn.Module) for one in sources)


def test_mutated_files_are_refused_or_networks(sources):
    dice, counts, bodies = random.Random(5), Counter(), [one.body for one in sources]
    for number in range(400):
        source = dice.choice(sources)
        data = mutated(source.body, bodies, dice)
        again = number % 2 == 1
        data = data[:-4] + zlib.crc32(data[:-4]).to_bytes(4, "little") if again else data
        counts[outcome(data, source, again)] += 1
    assert set(counts) <= {"refused", "network", "untouched"} and counts["refused"] > 300 and counts["network"]
