"""The samples that `make test` takes of what `make test-all` does whole."""

from __future__ import annotations

from tests.sampling import Sampler

CASES = ["open", "write 1", "write 2", "write 3", "write 4", "rename", "write 5", "write 6", "write 7", "exit"]


def kind(case: str) -> str:
    """What a case is an example of."""
    return case.split()[0]


def test_a_sample_has_the_ends_each_kind_and_every_few() -> None:
    sampler = Sampler(whole=False)
    assert sampler.of(CASES, kind) == ["open", "write 1", "write 4", "rename", "write 7", "exit"]
    assert sampler.of(CASES, every=3) == ["open", "write 3", "write 5", "exit"]
    assert sampler.of(CASES[:1], kind) == ["open"]
    assert sampler.of([], kind) == []


def test_the_whole_is_all_in_order() -> None:
    assert Sampler(whole=True).of(CASES, kind) == CASES
