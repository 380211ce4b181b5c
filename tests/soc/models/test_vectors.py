"""The published test vectors, to the digits given (discharge positive there, positive charging here)."""

from __future__ import annotations

import numpy as np
import pytest

from soc.estimation.estimator import Model
from soc.filters import Samples
from soc.models.measurement_update import INNOVATION, INNOVATION_SD, SD, SOC
from soc.models.options import PLAIN, Options, options
from soc.models.state import FilterMemory, StateEstimate, blank_memory

# v, i (discharge positive), Δt; then i_R, h, z, 3σ, ŷ, P_y
TEXTBOOK = """
3.300  0 1   0.000129 -0.003847 0.522888 0.176336 3.305893 0.00030924
3.245  2 1   0.098606 -0.058928 0.437833 0.150848 3.278449 0.00014424
3.240  2 1   0.191881 -0.099562 0.381206 0.124761 3.265529 0.00016397
3.335 -1 1   0.135244 -0.122071 0.469012 0.093675 3.290972 0.00019029
3.330 -1 10 -0.319618  0.059197 0.481633 0.090719 3.314667 0.00011277
3.300  0 60 -0.010969  0.050779 0.480685 0.088278 3.301523 0.00012728
"""
MEAN_CURRENT = """
3.300  0 1   0.000126 -0.003812 0.522882 0.176297 3.305893 0.00030916
3.245  2 1   0.098549 -0.058651 0.437791 0.150790 3.278449 0.00014418
3.240  2 1   0.191780 -0.099157 0.381138 0.124664 3.265529 0.00016397
3.335 -1 1   0.135156 -0.121605 0.468920 0.093582 3.290968 0.00019024
3.330 -1 10 -0.318033  0.055729 0.481646 0.090596 3.314669 0.00011166
3.300  0 60 -0.012685  0.055203 0.480615 0.087959 3.301517 0.00011467
"""
# v, i, Δt; then z, 3σ
LINEAR = """
3.490  1 1  0.50172457 0.03002375
3.485  1 1  0.49902005 0.02129180
3.500 -1 5  0.49576789 0.01741322
"""


def table(text: str) -> np.ndarray:
    return np.array([line.split() for line in text.strip().splitlines()], dtype=float)


def carried(model: Model, rows: np.ndarray, z0: float) -> tuple[list[StateEstimate], np.ndarray]:
    """The state estimates and outputs after each row, from the vectors' start."""
    memory = blank_memory()
    memory[FilterMemory.TIME] = 0.0
    belief = StateEstimate(*model.names, model.states, np.array([0, 0, z0]), np.diag([1e-4, 1e-2, 1e-2]), memory)
    beliefs, outs = [], []
    for time_s, v, i in zip(np.cumsum(rows[:, 2]), rows[:, 0], rows[:, 1], strict=True):
        sample = Samples(*(np.array([[x]]) for x in (time_s, -i, v, 25.0, np.nan)))
        belief, out = model.carry(belief, sample)
        beliefs.append(belief)
        outs.append(out[0])
    return beliefs, np.array(outs)


def plain(**values: float) -> Options:
    return options(PLAIN, current_sd_a=0.1, sensor_v=0.01, **values)


@pytest.mark.parametrize(("text", "on_points"), [(TEXTBOOK, True), (MEAN_CURRENT, False)])
def test_sigma_points_give_the_published_numbers(vector_cell, text, on_points):
    rows = table(text)
    beliefs, out = carried(Model(vector_cell, "spkf", plain(hysteresis_on_points=on_points)), rows, 0.55)
    means = np.array([b.mean for b in beliefs])
    assert means == pytest.approx(rows[:, 3:6], abs=5.1e-7)
    assert out[:, SOC] == pytest.approx(rows[:, 5], abs=5.1e-7)
    assert 3 * out[:, SD] == pytest.approx(rows[:, 6], abs=5.1e-7)
    assert rows[:, 0] - out[:, INNOVATION] == pytest.approx(rows[:, 7], abs=5.1e-7)
    assert out[:, INNOVATION_SD] ** 2 == pytest.approx(rows[:, 8], abs=5.1e-9)


@pytest.mark.parametrize("name", ["spkf", "ekf"])
def test_a_linear_cell_gives_the_published_numbers(linear_cell, name):
    rows = table(LINEAR)
    _, out = carried(Model(linear_cell, name, plain()), rows, 0.6)
    assert out[:, SOC] == pytest.approx(rows[:, 3], abs=5.1e-9)
    assert 3 * out[:, SD] == pytest.approx(rows[:, 4], abs=5.1e-9)
