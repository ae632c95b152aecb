"""Knows how schemathesis is set upon a running server, with what it says of itself in /openapi.json. Knows no route.

    .venv/bin/python -m scripts.release.fuzz http://127.0.0.1:3000 [--cases 5000]

Requests that follow the document and requests that break it, until there have been so many. Ends with status 1 if any
is answered with a 5xx, or in another shape than the document has for its status.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHECKS = "not_a_server_error,response_schema_conformance,content_type_conformance,status_code_conformance"
EXAMPLES = 200  # for each operation, in one run
MOST_RUNS = 50
WIDTH = 200  # characters of a line of its report that are shown: it repeats whole uploads


def run(url: str, *, examples: int, seed: int) -> int:
    """One run of schemathesis; how many requests it sent. Raises SystemExit with its report if a check fails."""
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/openapi.json", "--checks", CHECKS,
        "--max-examples", str(examples), "--seed", str(seed), "--suppress-health-check", "all", "--no-color",
    ]  # fmt: skip
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.fuzz_hooks", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    found = re.search(r"(\d+) generated, (\d+) passed", ended.stdout)
    if ended.returncode or not found or found[1] != found[2]:
        sys.exit("\n".join(line[:WIDTH] for line in (ended.stdout + ended.stderr).splitlines()))
    return int(found[1])


def main() -> None:
    """Run until there are enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="for each operation, in one run")
    arguments = parser.parse_args()
    cases = runs = 0
    while cases < arguments.cases and runs < MOST_RUNS:
        cases += run(arguments.url, examples=arguments.examples, seed=runs)
        runs += 1
        print(f"{cases} cases, all as described", flush=True)


if __name__ == "__main__":
    main()
