"""Two words that page and terminal show alike, so that a link which somebody else sent is seen through.

They are chosen at random for each page: 128 times 128 pairs, short and hard to confuse when they are read aloud.
"""

from __future__ import annotations

import secrets
from typing import Final

FIRST: Final = tuple(
    """
    able agile amber ample azure basic bold brave brief bright brisk broad bronze busy calm candid careful casual cheery
    civil clean clear clever close cloudy cobalt cool copper coral cosy crisp curious daily dapper daring deep deft dense
    direct dusty eager early earnest easy equal exact fair famous fancy fast final fine firm fleet fluent fond formal frank
    fresh frosty gentle giant glad golden grand grateful green handy happy hardy hidden honest humble icy ideal indigo ivory
    jolly keen kind large lasting late lemon level light lively local loud loyal lucky lunar magenta mellow merry mild mint
    misty modern modest narrow neat nimble noble normal novel olive open orange patient pearl plain pleasant plucky polite
    prime proud purple quick quiet rapid rare ready round royal sandy silent silver
    """.split()  # noqa: SIM905 - a list of literals would be three screens long
)
SECOND: Final = tuple(
    """
    acorn anchor anvil apple apron arrow badger basket beacon beaver birch bison blanket bottle branch bridge bucket button
    cabin cactus camel candle canoe canyon carpet castle cedar chapel cherry cloud clover comet compass cotton cradle crane
    cricket crown daisy desert dolphin donkey dragon drum eagle engine falcon feather fiddle field finch flute forest
    fountain fox galaxy garden garnet ginger glacier goose granite grove hammer harbor harvest hazel hedge heron hill
    honey island jacket jasmine jungle kettle kite ladder lagoon lantern laurel lizard lobster magnet maple marble meadow
    melon meteor mirror monkey moose mountain mustard needle nutmeg oasis ocean orchard otter oyster paddle panda parrot
    pebble pelican pepper pillow pine planet pocket poppy prairie quartz rabbit raven ribbon river robin rocket saddle
    salmon scarf shell sparrow spruce swan tiger
    """.split()  # noqa: SIM905 - as above
)


def new_words() -> str:
    """A pair such as ``amber falcon``."""
    return f"{secrets.choice(FIRST)} {secrets.choice(SECOND)}"
