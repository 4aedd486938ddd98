"""`python -m deployments.embedded prepare` makes the template database; the other verbs are the package's own."""

import sys

from tasks.domain.errors import UpgradeError

USAGE = "usage: python -m deployments.embedded prepare"


def main(arguments: list[str]) -> int:
    """Run one verb; returns the exit code (2 for a wrong call)."""
    match arguments:
        case ["prepare"]:
            from deployments.embedded.template import prepare

            try:
                sys.stdout.write(f"{prepare()}\n")
            except UpgradeError as error:
                sys.stderr.write(f"{error}\n")
                return error.exit_code
        case ["migrate", path]:
            from deployments.embedded.serve import migrate

            migrate(path)
        case ["serve", descriptor, directory]:
            from deployments.embedded.serve import serve

            serve(int(descriptor), directory)
        case _:
            sys.stderr.write(f"{USAGE}\n")
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
