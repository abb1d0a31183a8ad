"""Snakemake's command line for this machine, without its limit of jobs per second.

The timer of that limit keeps the process alive for a second after the last job; here, where the cores are the limit,
it only costs that second. Run as ``python -m companion.snakemake_local`` with Snakemake's own arguments.
"""

from __future__ import annotations

import sys

from snakemake.cli import args_to_api, parse_args
from snakemake.exceptions import print_exception


def main() -> None:
    """Run Snakemake with the arguments of this process; the exit code is 1 where something failed."""
    try:
        parser, arguments = parse_args(sys.argv[1:])
        arguments.max_jobs_per_timespan = None
        succeeded = args_to_api(arguments, parser)
    except Exception as error:
        print_exception(error)
        succeeded = False
    sys.exit(0 if succeeded else 1)


if __name__ == "__main__":
    main()
