"""Cells with known solutions."""

from __future__ import annotations

import numpy as np
import pytest

from soc.cell.ocv import Ocv
from soc.cell.parameters import CellParameters, Noise

CURVE = [2.8, 3.15, 3.22, 3.26, 3.29, 3.30, 3.31, 3.33, 3.34, 3.36, 3.55]


@pytest.fixture(scope="session")
def vector_cell() -> CellParameters:
    """The cell of the published test vectors: a flat curve, one RC pair, hysteresis."""
    return CellParameters.plain(
        "vectors",
        2.0,
        Ocv.of_points(np.linspace(0, 1, 11), CURVE),
        0.010,
        [(0.015, 20.0)],
        efficiency=0.995,
        gamma=120.0,
        m_v=0.020,
        m0_v=0.002,
    )


@pytest.fixture(scope="session")
def linear_cell() -> CellParameters:
    """OCV = 3 + z and no hysteresis: the exact Kalman filter is the reference."""
    return CellParameters.plain("linear", 2.0, Ocv.of_points([0, 1], [3.0, 4.0]), 0.010, [(0.015, 20.0)])


@pytest.fixture(scope="session")
def warm_and_cold_cell() -> CellParameters:
    """Two temperatures, two RC pairs, resistances that depend on z, charge transfer in the cold, all noises."""
    return CellParameters(
        name="warm and cold",
        chemistry="NMC",
        nominal_ah=3.0,
        voltage_min_v=2.8,
        voltage_max_v=4.2,
        temperature_degc=np.array([-10.0, 25.0]),
        soc_knots=np.array([0.0, 0.2, 1.0]),
        capacity_ah=np.array([2.8, 3.0]),
        efficiency=np.array([0.99, 0.998]),
        ocv=Ocv.of_points([0, 0.1, 0.5, 1], [3.0, 3.4, 3.7, 4.2], slope_v_per_k=1e-4),
        shift_v=np.array([[0.01, 0.0, 0.0], [0.0, 0.0, 0.0]]),
        r0_ohm=np.array([[0.09, 0.06, 0.05], [0.03, 0.02, 0.02]]),
        r_ohm=np.array([[[0.06, 0.04, 0.03], [0.02, 0.01, 0.01]], [[0.03, 0.03, 0.03], [0.02, 0.02, 0.02]]]),
        tau_s=np.array([[10.0, 8.0], [300.0, 200.0]]),
        m_v=np.array([[0.01, 0.01, 0.01], [0.005, 0.005, 0.005]]),
        m0_v=np.array([[0.0, 0.0, 0.0], [0.001, 0.001, 0.001]]),
        gamma=np.array([50.0, 80.0]),
        charge_transfer_a=np.array([2.0, np.inf]),
        noise=Noise.uniform(2, 3, error_v=0.008, bias_v=0.006),
    )
