"""A payer that works through jobs until it is told to stop, and goes on where it was if it is killed.

``python load_payer.py URL FOLDER``: several callers, each with jobs of its own, one after another. A job is
noted in ``FOLDER/done-N`` once its response is there (its number, what was charged, the contract's id); until
then it is tried again, under the same idempotency key. Ends when there is a file ``FOLDER/stop``.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import tenacity

from tokenmesh import default_mesh
from tokenmesh.errors import CallError

CALLERS = 4
PATIENT = tenacity.Retrying(
    stop=tenacity.stop_after_delay(120),
    wait=tenacity.wait_random(0.05, 0.5),
    # Said outright: also a POST that the payee gave up, because it was killed in the middle.
    retry=tenacity.retry_if_exception_type(CallError),
)


def done_before(file: Path) -> int:
    """How many jobs are noted; a line that a kill has cut short is not one."""
    if not file.exists():
        return 0
    text = file.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.write_text(whole)
    return whole.count("\n")


def caller(url: str, folder: Path, number: int) -> None:
    """Do one job after another."""
    file = folder / f"done-{number}"
    way = "held" if number % 2 else "drawn"
    with default_mesh().client("payee", url=url, retry=PATIENT) as client, file.open("a") as done:
        job = done_before(file)
        while not (folder / "stop").exists():
            key = f"load-{number}-{job}"
            response = client.post(f"/{way}/{key}", idempotency_key=key)
            response.raise_for_status()
            assert response.json() == {"job": key}
            call = response.extensions["tokenmesh"]
            done.write(f"{job} {call.charged} {call.contract_id}\n")
            done.flush()
            os.fsync(done.fileno())
            job += 1


def main(url: str, folder: Path) -> None:
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            caller(url, folder, number)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=run, args=(number,)) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    default_mesh().close()
    sys.exit(bool(failures))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
