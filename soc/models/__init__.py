"""The cell model and the parts that filters share, as compiled code. Discharge is positive, as in the literature.

    esc                  the cell's equations                    options        the options of the filters
    step_input           from a sample to one step               state          the state estimate
    time_update          propagate the state over one step       compiled       the compiler's decorators
    measurement_update   correct the state by a voltage          sigma_points   sums over sigma points
    linear               the linearised prediction

May import `soc.cell` and `soc.errors`. No input or output, except the cache of compiled code.
"""
