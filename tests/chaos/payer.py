"""A paying process: works through jobs until it is told to stop, and goes on where it was if it is killed.

``python -m chaos.payer NAME URL FOLDER``. Three callers: two of them do one job after the other, each under
an idempotency key, and a job that ended badly again and again until it is done; the third looks things up
without a key, and forgets what came to nothing. Whatever is answered is noted, and synced, before the next
job begins.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import tenacity
from chaos.notes import DurableNotes, Folder, mend, read

from tokenmesh import default_mesh
from tokenmesh.errors import CallError

PAYEE = "payee"
KEYED = ("drawn", "held")
LOOK = "look"
PATIENT = tenacity.Retrying(
    stop=tenacity.stop_after_delay(30),
    wait=tenacity.wait_random(0.05, 0.4),
    # Said outright: also a POST that the payee gave up, because it was killed in the middle.
    retry=tenacity.retry_if_exception_type(CallError),
)
PAUSE_S = 0.2
"""After a call that came to nothing, or else a frozen payer would do nothing but ask."""


class Payer:
    """All callers of one process."""

    def __init__(self, name: str, url: str, folder: Folder) -> None:
        self.name = name
        self._url = url
        self._stop = folder.stop
        path = folder.answers(name)
        mend(path)
        self._begun = dict.fromkeys((*KEYED, LOOK), 0)
        for note in read(path):
            self._begun[note["way"]] = note["number"] + 1
        self._notes = DurableNotes(path)
        self._pause = threading.Event()

    def keyed(self, way: str) -> None:
        """One job after the other, each until it is done; first the one that a life before may have begun."""
        number = self._begun[way]
        with default_mesh().client(PAYEE, url=self._url, retry=PATIENT) as client:
            while number == self._begun[way] or not self._stop.exists():
                job = f"{self.name}-{way}-{number}"
                while not self._tried(
                    way, number, lambda job=job: client.post(f"/{way}/{job}", idempotency_key=job)
                ):
                    self._pause.wait(PAUSE_S)
                number += 1

    def look(self) -> None:
        """One question after the other; what comes to nothing is not asked again."""
        number = self._begun[LOOK]
        with default_mesh().client(PAYEE, url=self._url) as client:
            while not self._stop.exists():
                job = f"{self.name}-{LOOK}-{number}"
                if not self._tried(LOOK, number, lambda job=job: client.get(f"/{LOOK}/{job}")):
                    self._pause.wait(PAUSE_S)
                number += 1

    def _tried(self, way: str, number: int, call: Any) -> bool:
        """Make the call and note its end; False if it has none yet."""
        try:
            response = call()
        except CallError as error:
            # In the log, for people: what is not acknowledged proves nothing.
            print(f"{way} {number}: {type(error).__name__}: {error}"[:300], flush=True)
            return False
        info = response.extensions["tokenmesh"]
        if info.receipt is None:
            print(f"{way} {number}: {response.status_code} without a receipt", flush=True)
            return False
        self._notes.write(
            way=way,
            number=number,
            status=response.status_code,
            run=response.json()["run"],
            jti=info.contract_id,
            charged=info.charged,
            receipt=info.receipt_text,
        )
        return True


def main(name: str, url: str, folder: Path) -> int:
    payer = Payer(name, url, Folder(folder))
    failures: list[BaseException] = []

    def run(work: Any, *given: str) -> None:
        try:
            work(*given)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=run, args=(payer.keyed, way)) for way in KEYED]
    threads.append(threading.Thread(target=run, args=(payer.look,)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    default_mesh().close()
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
