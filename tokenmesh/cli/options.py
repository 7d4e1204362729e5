"""Options and arguments that commands share, and the group that gives every command ``--home`` and
``--ledger`` and turns errors into a line or two on stderr."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import click

from tokenmesh.cli.desk import Fault, Interrupted
from tokenmesh.cli.session import GOVERNANCE, Session
from tokenmesh.errors import ConfigError, TokenmeshError
from tokenmesh.fabric.errors import FabricError
from tokenmesh.identity import check_name
from tokenmesh_chaincode.limits import TOKENS_MAX

FABRIC_MODULES = ("fabric_protos", "google", "grpc", "yaml")
"""What the extra ``fabric`` brings, which the other commands work without."""

pass_session = click.make_pass_decorator(Session, ensure=True)


def wallet_name(value: str) -> str:
    """The type of arguments and options that name a wallet."""
    try:
        return check_name(value)
    except ConfigError as error:
        raise click.BadParameter(str(error)) from error


TOKENS = click.IntRange(1, TOKENS_MAX)

as_json = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, nothing else.")
as_governor = click.option(
    "--as",
    "acting",
    type=wallet_name,
    metavar="NAME",
    default=GOVERNANCE,
    show_default=True,
    help="The wallet that signs.",
)


def give(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """The callback of an option that is a setting."""
    ctx.find_root().ensure_object(Session).give(str(param.name), value)


def _everywhere() -> list[click.Parameter]:
    """Options of the group and of every command, so they may stand before or after its name."""
    return [
        click.Option(
            ["--home"],
            type=click.Path(file_okay=False, path_type=Path),
            expose_value=False,
            callback=give,
            help="The directory with the keys. [TOKENMESH_HOME; default: .tokenmesh]",
        ),
        click.Option(
            ["--ledger"],
            metavar="URL",
            expose_value=False,
            callback=give,
            help="The ledger. [TOKENMESH_LEDGER; default: sqlite:///HOME/ledger.db]",
        ),
    ]


class MeshGroup(click.Group):
    """A group whose commands all have these options, and of which none ends with a trace."""

    group_class = type

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.params.extend(_everywhere())

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        if not isinstance(cmd, MeshGroup):
            cmd.params.extend(_everywhere())
        super().add_command(cmd, name)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise
        except (KeyboardInterrupt, click.Abort) as error:
            raise Interrupted("interrupted") from error
        except (TokenmeshError, FabricError) as error:
            raise Fault(str(error)) from error
        except ModuleNotFoundError as error:
            if str(error.name).partition(".")[0] not in FABRIC_MODULES:
                raise
            raise Fault(f"{error.name} is missing: pip install 'tokenmesh-fabric[fabric]'") from error
        except OSError as error:
            raise Fault(f"{error.filename or 'the system'}: {error.strerror or error}") from error
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            raise Fault(
                f"{type(error).__name__}: {error} (at {Path(place.filename).name}:{place.lineno})\n"
                "This is a mistake in tokenmesh, not in what you did: please report it with this line."
            ) from error
