"""Charts of recordings, estimates and identifications.

    charts    recordings and estimates by matplotlib             svg    line charts as inline SVG for reports

`charts` needs the extra `notebooks`; `svg` has no dependencies. The package may import `soc.series`, `soc.errors`
and `soc.files`.
"""
