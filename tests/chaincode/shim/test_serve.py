"""``serve``: it ends when it is told to, whichever thread the signal happens to reach."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys, threading
from tokenmesh_chaincode.shim import Options, serve

main = threading.main_thread().ident

def is_waiting():
    names, frame = [], sys._current_frames()[main]
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return "serve" in names and "wait" in names and "start" not in names

def tell():
    while not is_waiting():
        os.sched_yield()
    # Delivered to this thread: it interrupts nothing that the main thread waits for.
    signal.pthread_kill(threading.get_ident(), signal.{number})

signal.signal(signal.SIGUSR1, lambda *_: None)
threading.Thread(target=tell, daemon=True).start()
serve(lambda stub: b"", options=Options("rules:1", "127.0.0.1:0"))
print("ended", signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
"""
ENDED_S = 30


def run(number: str, timeout_s: float) -> str:
    program = PROGRAM.replace("{number}", number)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=timeout_s, check=True
    )
    return done.stdout


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_that_reaches_another_thread_ends_it(number: str) -> None:
    """And what the program did about signals before is as it was."""
    assert run(number, ENDED_S) == "ended True\n"


def test_other_signals_do_not() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run("SIGUSR1", 3)
