"""Dashboards, alerts, data sources and downsampling as code; `python -m grafana.build` writes `built/`.

Imports the vocabulary, the standard library and a YAML writer, and nothing else.
"""
