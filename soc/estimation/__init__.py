"""A recording and a cell to an estimate of the state of charge.

    cleaning        columns to a Series; unusable rows are left out and counted
    initial_state   the first state estimate and its uncertainty
    consistency     evidence that the data contradict the model
    estimator       a filter along a Series: `Estimator` step by step, `estimate` whole
    session         a long recording in pieces, in bounded memory
    service         live: new samples in, estimates out, state kept between starts
    score           errors, coverage and consistency against a reference

May import `soc.cell`, `soc.models`, `soc.filters`, `soc.series` and, for `session` and `service`, `soc.stores`.
"""
