"""The six dashboards, in the order in which a person meets them. Each module says which question each panel answers.

overview    How is the battery now, and can I believe what I see?
agreement   Do the instruments agree, and if not, how do they differ?
soc         How full is it, how sure is that, and does the estimator agree with itself?
cells       Is one cell apart from the others, and was a limit passed?
fleet       Does every bench deliver, and if not, where does it stick?
collector   What does this one collector do with its instrument?
"""

from __future__ import annotations

from grafana.dashboard import Dashboard
from grafana.dashboards import agreement, cells, collector, fleet, overview, soc

ALL: tuple[Dashboard, ...] = (
    overview.DASHBOARD,
    agreement.DASHBOARD,
    soc.DASHBOARD,
    cells.DASHBOARD,
    fleet.DASHBOARD,
    collector.DASHBOARD,
)
