"""Sends a running server random requests with schemathesis, made from its /openapi.json.

    python -m scripts.release.fuzz http://127.0.0.1:3000 [--cases 5000]

Some requests follow that document and some break it. Exits with status 1 if an answer has a 5xx status, or is not as
the document describes it for its status.
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
MAX_RUNS = 50
WIDTH = 200  # characters that are shown of a line of its report, which repeats whole uploads


def run(url: str, *, examples: int, seed: int) -> int:
    """One run of schemathesis; number of requests that it sent. Raises SystemExit with its report if a check fails."""
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
    """Run until enough requests are sent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="for each operation, in one run")
    arguments = parser.parse_args()
    cases = runs = 0
    while cases < arguments.cases and runs < MAX_RUNS:
        cases += run(arguments.url, examples=arguments.examples, seed=runs)
        runs += 1
        print(f"{cases} cases, all answered as described", flush=True)


if __name__ == "__main__":
    main()
