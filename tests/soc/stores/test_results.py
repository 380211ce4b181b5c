"""What is written uses the words of the vocabulary that collectors, dashboards and alerts share."""

from __future__ import annotations

from collectors import signals
from soc.stores import SIGNALS
from soc.stores._results import FILE_COLUMNS


def test_results_are_exactly_the_vocabulary_s_soc_signals() -> None:
    assert set(SIGNALS) == set(signals.VOCABULARY["soc"])


def test_files_have_some_of_them() -> None:
    assert set(FILE_COLUMNS) < set(SIGNALS)
