"""Every step of a run disturbed at every moment: `make faults`.

    python -m tests.faults [--jobs 3] [--every] [--most N] [--match TEXT] [--list] [GROUP...]

Prints a line when a case is through and the table at the end; ends with 1 where one is not as it should be.  A case
whose fault did not land where it was meant to has shown nothing and counts as failed.
"""

import argparse
import re
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from deployments.embedded import EmbeddedServer
from tests.faults.away import away_cases
from tests.faults.elsewhere import elsewhere_cases
from tests.faults.flow import ROLLBACK, SERVER, UPGRADE
from tests.faults.freezing import freezing_cases
from tests.faults.killing import all_back_cases, killing_cases
from tests.faults.meddling import meddling_cases
from tests.faults.racing import racing_cases
from tests.faults.results import Case, Outcome, spread, table

GROUPS: dict[str, Callable[..., list[Case]]] = {
    "upgrade": partial(killing_cases, UPGRADE),
    "rollback": partial(killing_cases, ROLLBACK),
    "rollback-all": all_back_cases,
    "upgrade-away": partial(away_cases, UPGRADE),
    "rollback-away": partial(away_cases, ROLLBACK),
    "races": racing_cases,
    "elsewhere": elsewhere_cases,
    "frozen": freezing_cases,
    "other-hands": meddling_cases,
}


def carried_out(case: Case) -> Outcome:
    """The case, whatever comes of it."""
    outcome = Outcome(case)
    try:
        case.act(outcome)
    except AssertionError as error:
        outcome.problems.append(str(error))
    except Exception:  # noqa: BLE001 - the other cases go on
        outcome.problems.append(traceback.format_exc())
    print(f"{'' if outcome.good else 'FAILED '}{case.name}", flush=True)
    if not outcome.good:
        texts = (*outcome.problems, outcome.told)
        print("\n".join(f"    {line}" for text in texts for line in text.splitlines()[-40:]), flush=True)
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("groups", nargs="*", choices=[[], *GROUPS], metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--jobs", type=int, default=3, help="how many at once")
    parser.add_argument("--every", action="store_true", help="also steps that are like another")
    parser.add_argument("--most", type=int, default=0, help="so many cases of each group at most, of all kinds some")
    parser.add_argument("--match", default="", help="only cases whose name fits this regular expression")
    parser.add_argument("--list", action="store_true", help="say which cases there are")
    asked = parser.parse_args()
    begin = time.monotonic()
    with EmbeddedServer() as server:
        server.wait()
        SERVER.update(server.settings())
        return _all(asked, begin)


def _all(asked: argparse.Namespace, begin: float) -> int:
    groups = [GROUPS[name](every=asked.every) for name in asked.groups or GROUPS]
    groups = [[case for case in cases if re.search(asked.match, case.name)] for cases in groups]
    cases = [case for group in groups for case in (spread(group, asked.most) if asked.most else group)]
    if asked.list:
        print("\n".join(case.name for case in cases))
        return 0
    print(f"{len(cases)} of {sum(map(len, groups))} cases", flush=True)
    with ThreadPoolExecutor(asked.jobs) as pool:
        outcomes = list(pool.map(carried_out, cases))
    print(f"\n{table(outcomes)}\n{time.monotonic() - begin:.0f} s", flush=True)
    return 0 if outcomes and all(one.good for one in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
