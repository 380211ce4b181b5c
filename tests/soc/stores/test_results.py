"""Results are written with the signal names that collectors, dashboards and alerts share."""

from __future__ import annotations

from collectors import signals
from soc.stores import SIGNALS
from soc.stores._results import FILE_COLUMNS


def test_results_are_exactly_the_vocabulary_s_soc_signals() -> None:
    assert set(SIGNALS) == set(signals.VOCABULARY["soc"])


def test_result_files_have_a_subset_of_these_signals() -> None:
    assert set(FILE_COLUMNS) < set(SIGNALS)
