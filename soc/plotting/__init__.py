"""Pictures.

    charts    recordings and estimates by matplotlib             svg    line charts as inline SVG for reports

`charts` needs the extra `notebooks`; `svg` needs nothing.
"""
