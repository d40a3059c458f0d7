"""`secondread`: the composition root of every command."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from worker import edge
from worker.commands import ask, engine_bench, engines, keep, maintain, model, model_bench, post, roles, trial
from worker.version import VERSION


class _ExplainingGroup(TyperGroup):
    """Errors that we raise on purpose end a command with a sentence, never with a stack trace."""

    def invoke(self, ctx: Any) -> Any:
        with edge.explained():
            return super().invoke(ctx)


app = typer.Typer(
    name="secondread",
    cls=_ExplainingGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Runs AI models on the studies that a PACS routes to it, and sends their results back as DICOM objects.",
)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"secondread {VERSION}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Say which version this is.", is_eager=True, callback=_say_version),
    ] = False,
) -> None: ...


for group in (trial, roles, keep, ask, post, maintain):
    group.add_to(app)
model_bench.add_to(model.app)
engine_bench.add_to(engines.app)
app.add_typer(model.app, name="models", help="The model packages.")
app.add_typer(engines.app, name="engines", help="Models compiled for a GPU, and whether they may serve.")


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
