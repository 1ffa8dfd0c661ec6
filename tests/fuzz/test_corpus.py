"""The seeds and the saved inputs of the fuzzers, without a fuzzer."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz.seeds import SEEDS
from fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


def test_targets_have_seeds() -> None:
    assert SEEDS.keys() == TARGETS.keys()
    assert {path.name for path in CORPUS.iterdir()} <= TARGETS.keys()


@pytest.mark.parametrize("name", TARGETS)
def test_replay(name: str) -> None:
    target = TARGETS[name]
    saved = [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]
    for data in [*SEEDS[name], *saved]:
        target(data)
