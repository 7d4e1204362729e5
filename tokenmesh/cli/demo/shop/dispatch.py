"""Dispatch, on FastAPI: parcels go out, and a letter says so."""

from __future__ import annotations

from typing import Any

from fastapi import BackgroundTasks, FastAPI
from pydantic import BaseModel, Field

from tokenmesh import charge, priced
from tokenmesh.cli.demo.exporting import watched
from tokenmesh.cli.demo.shop.house import note_run, spanned

GRAMS_A_PARCEL = 2_000
PARCELS_MAX = 20

shipping = watched(FastAPI(title="shipping"))


class Goods(BaseModel):
    grams: int = Field(ge=0, le=GRAMS_A_PARCEL * PARCELS_MAX)
    to: str


@shipping.post("/quotes")
@priced(tokens=1)
@spanned
async def quote(goods: Goods) -> dict[str, int]:
    note_run()
    return {"cents": 350 + goods.grams // 10}


# How many parcels it takes is known after packing: the payer agrees to a most, and is charged what it was.
@shipping.post("/shipments", status_code=201)
@priced(up_to=4 + 2 * PARCELS_MAX)
@spanned
async def ship(goods: Goods) -> dict[str, Any]:
    note_run()
    parcels = -(-goods.grams // GRAMS_A_PARCEL)
    charge(4 + 2 * parcels)
    return {"parcels": parcels, "to": goods.to}


email = watched(FastAPI(title="email"))
letters_sent = 0


class Letter(BaseModel):
    to: str
    text: str = Field(max_length=10_000)


def send(letter: Letter) -> None:
    """Where a mail server would be called."""
    global letters_sent  # noqa: PLW0603 - stands for the outside world
    letters_sent += len(letter.text) > 0


# Not async on purpose, and the letter goes out after the response: both are as usual under @priced.
@email.post("/letters", status_code=202)
@priced(tokens=2)
@spanned
def confirm(letter: Letter, background: BackgroundTasks) -> dict[str, bool]:
    note_run()
    background.add_task(send, letter)
    return {"accepted": True}
