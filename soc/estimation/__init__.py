"""Estimate the state of charge from a recording and a cell.

    cleaning        columns to a Series; unusable rows are left out and counted
        initial_state   the first state estimate and its covariance
    consistency     evidence that the data contradict the model
        estimator       run a filter along a Series: `Estimator` step by step, `estimate` as a whole
        session         process a long recording piece by piece, in bounded memory
        service         live service: read new samples, write estimates, keep the state across restarts
    score           errors, coverage and consistency against a reference

May import `soc.cell`, `soc.models`, `soc.filters`, `soc.series`, `soc.errors`, `soc.files` and, for `session` and
`service`, `soc.stores`. It does not import `soc.identify` or `soc.cli`.
"""
