"""The command line: its commands, and mistakes reported in one clear line."""

import logging
import signal
import sys

import click

import training
from training.commands import benchmark, evaluate, render, sign
from training.libraries import configure
from training.train_command import train
from training.tune_command import tune


@click.group(
    no_args_is_help=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "show_default": True,
        "max_content_width": 100,
    },
)
@click.version_option(
    training.__version__, prog_name="actor-critic", message="%(prog)s %(version)s"
)
def commands() -> None:
    """Learn a policy on a Gymnasium environment and export it for serving."""
    configure()
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # no notices


for command in (train, evaluate, render, benchmark, tune, sign):
    commands.add_command(command)


def main() -> None:
    """Run the command line and exit with its status; 130 after Ctrl-C."""
    try:
        sys.exit(commands.main(standalone_mode=False))
    except click.ClickException as mistake:
        # Not by click itself: its usage lines would bury the error.
        click.echo(f"Error: {mistake.format_message()}", err=True)
        sys.exit(mistake.exit_code)
    except click.Abort:
        sys.exit(128 + signal.SIGINT)
