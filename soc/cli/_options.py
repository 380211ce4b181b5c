"""Options that several commands share: the cell, the filter, and how a recording is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from soc.errors import CellError, OptionError

if TYPE_CHECKING:
    from soc.estimation.session import Setup
    from soc.stores import Recording, Rules

Command = TypeVar("Command", bound=Callable[..., Any])


class CellName(click.ParamType[str]):
    """The name of a shipped cell or the path of a cell file."""

    name = "name or file"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the shipped cells, and let the shell complete files."""
        from soc.cell.library import names

        return [*(CompletionItem(n) for n in names() if n.startswith(incomplete)), CompletionItem(incomplete, "file")]


@dataclass(frozen=True)
class RecordingOptions:
    """The options of the command line for an estimation; None means the recording's header, then the default."""

    cell: str | None
    soc0: float | None
    soc0_sd: float | None
    temperature_degc: float | None
    options: Mapping[str, Any]
    maps: Sequence[str]
    series: int
    parallel: int
    use_counter: bool

    def refuse_overwriting(self, places: Sequence[str], *outputs: str | Path | None) -> None:
        """Raise `OverwriteError` if an output is one of the recordings, a file that they need, or the cell file."""
        from soc.files import refuse_overwriting
        from soc.stores import local_files

        read = [path for place in places for path in local_files(place)]
        refuse_overwriting(outputs, [*read, *_cell_files(self.cell)])

    def rules(self) -> Rules:
        """Return the rules for the recording's columns. Raises `StoreError`."""
        from soc.stores import Rules

        return Rules.parse(self.maps)

    def setup(
        self, recording: Recording, filter_name: str, *, full: bool = False, output: str | Path | None = None
    ) -> Setup:
        """Return the setup for this recording; the command line takes precedence over the header.

        Raises `CellError`, `OptionError`; `OverwriteError` if `output` is the cell file.
        """
        from soc.cell.library import cell
        from soc.estimation.cleaning import Pack
        from soc.estimation.estimator import SOC_SD
        from soc.estimation.session import Setup
        from soc.files import refuse_overwriting

        header = recording.header

        def chosen(name: str) -> Any:
            given = getattr(self, name)
            return header.get(name) if given is None else given

        name = chosen("cell")
        refuse_overwriting([output], _cell_files(name))  # the header may name another cell than the command line
        if name is None:
            raise CellError(f"{recording.place}: which cell is it? Give --cell; `soc cells` lists the known ones")
        soc0_sd = chosen("soc0_sd")
        return Setup(
            cell=cell(name),
            filter=filter_name,
            soc0=chosen("soc0"),
            soc0_sd=SOC_SD if soc0_sd is None else soc0_sd,
            pack=Pack(self.series, self.parallel, chosen("temperature_degc"), self.use_counter),
            full=full,
            options=self.options,
        )


def _cell_files(name: str | None) -> list[Path]:
    """Return the file of a cell, if a cell is named and the file exists."""
    from soc.cell.library import path_of

    try:
        return [] if name is None else [path_of(name)]
    except CellError:
        return []  # loading the cell reports the error


def parse_options(texts: Sequence[str]) -> dict[str, float | bool]:
    """Return the filter options of `name=value` texts. Raises `OptionError` naming the text."""
    found: dict[str, float | bool] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
        try:
            found[name] = words[value.lower()] if value.lower() in words else float(value)
        except ValueError as error:
            raise OptionError(f"option {text!r}: expected NAME=NUMBER or NAME=true|false") from error
        if not equals or not name:
            raise OptionError(f"option {text!r}: expected NAME=NUMBER or NAME=true|false")
    return found


CELL = click.option(
    "--cell",
    type=CellName(),
    help="Which cell: a name that `soc cells` lists, or a cell file. Default: what the recording's header says.",
)


def recording_options(command: Command) -> Command:
    """Add the options for reading a recording and for the initial state, passed as `RecordingOptions`."""
    for option in reversed(_RECORDING):
        command = option(command)
    return command


def recording_choices(taken: dict[str, Any]) -> RecordingOptions:
    """Remove the shared options from a command's arguments and return them."""
    return RecordingOptions(
        cell=taken.pop("cell"),
        soc0=taken.pop("soc0"),
        soc0_sd=taken.pop("soc0_sd"),
        temperature_degc=taken.pop("temperature_degc"),
        options=parse_options(taken.pop("options")),
        maps=taken.pop("maps"),
        series=taken.pop("series"),
        parallel=taken.pop("parallel"),
        use_counter=taken.pop("use_counter"),
    )


_RECORDING = (
    CELL,
    click.option("--soc0", type=float, help="State of charge at the start, 0..1. Default: header, else from voltage."),
    click.option("--soc0-sd", type=float, help="How well that is known: one standard deviation. Default 0.05."),
    click.option(
        "--temperature-degc",
        type=float,
        help="Where the recording has none: no column, or not yet a value.",
    ),
    click.option(
        "--map",
        "maps",
        multiple=True,
        metavar="OURS=THEIRS",
        help="Another column name, unit or sign: current_a=I_mA*0.001, current_a=-I, temperature_degc=T*0.1-273.15.",
    ),
    click.option("--series", type=click.IntRange(1), default=1, help="Cells in series in the measured battery."),
    click.option("--parallel", type=click.IntRange(1), default=1, help="Parallel strings in the measured battery."),
    click.option("--use-counter", is_flag=True, help="Take the charge between samples from the column charge_ah."),
    click.option(
        "--option", "options", multiple=True, metavar="NAME=VALUE", help="An option of the filter; see docs/soc.md."
    ),
)
