"""`soc identify EXPERIMENTS`: identify a cell's parameters and their accuracy from recordings."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("identify")
@click.argument("experiments", metavar="EXPERIMENTS.toml", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The cell file to write; default NAME.toml here.")
@click.option("--report", type=click.Path(path_type=Path, file_okay=False), help="Folder for NAME.html and NAME.json.")
@click.option("--json", "as_json", is_flag=True, help="Print the report's numbers as JSON.")
def COMMAND(experiments: Path, out: Path | None, report: Path | None, as_json: bool) -> None:  # noqa: N802
    """Identify a cell from slow (OCV) and dynamic recordings that EXPERIMENTS.toml lists: files, journal or InfluxDB.

    Prints the voltage error on data that the fit did not see, by run; that is what to judge a cell file by. The format
    of EXPERIMENTS.toml is in docs/soc.md.

    \b
    soc identify my_cell_tests.toml --report .
    soc identify my_cell_tests.toml --out my_cell.toml --json
    soc estimate tomorrow.csv --cell my_cell.toml
    """
    from soc.cell import toml_file
    from soc.files import refuse_overwriting, whole_file
    from soc.identify import experiments as told
    from soc.identify import identify
    from soc.identify.report import summary, to_html, to_json

    plan = told.plan(experiments)
    path = out or Path(f"{plan.name}.toml")
    pages = {} if report is None else {report / f"{plan.name}.html": to_html, report / f"{plan.name}.json": to_json}
    refuse_overwriting([path, *pages], [experiments, *told.local_files(plan)])
    made = told.load(plan)
    found = identify(made.runs, made.ocv, made.about, made.settings)
    toml_file.save(found.cell, path)
    if report is not None:
        report.mkdir(parents=True, exist_ok=True)
    for page, text_of in pages.items():
        with whole_file(page, "w") as file:
            file.write(text_of(found))
    if as_json:
        click.echo(json.dumps({**summary(found), "file": str(path)}))
        return
    click.echo(f"{path}: {found.cell.id}, {len(made.runs)} runs at {len(found.fit.anchors)} temperatures")
    for error in found.held_out:
        click.echo(f"  {error.run.name}: {1e3 * error.rms_v:.1f} mV rms, found without this {error.how}")
    for warning in (*made.warnings, *found.warnings):
        click.echo(f"soc: {warning}", err=True)
