"""English nouns and their plurals: the prompts of ``textenvs/Prompts-v0`` where none are given."""

from __future__ import annotations

_REGULAR = """
acorn actor alley anchor angle ankle apple apron arch army arrow artist author baby bag baker banana basket bat bath
beach bean bear bed bee bell belt bench berry bike bird boat body book boot bottle bowl box boy branch brick bridge
brother brush bucket bus bush button cabin camera camp candle canyon captain car card carpet carrot castle cat chain
chair chapel cherry church circus city class clock cloud clown coat coin comet copy corner cottage country cousin crab
crate cross crow crown cup daisy dancer desk diary dish doctor dog door dragon dress drum duck eagle ear egg
elbow engine eye factory family farm farmer fence ferry field finger fire flag flower fly forest fork fox friend frog
galaxy game garden gate ghost giant girl glass goat grape guitar hammer harbour hat hedge helmet hen hill hobby horse
hotel island jacket jar joke jungle key king kiss kite kitten ladder lady lake lamp lantern leg lemon letter library
lily lion lunch lynx magnet map mask match meadow melon mirror monkey moon mountain nail needle nest night nurse ocean
onion orange orchard owl page painter palace pan paper park parrot party patch path peach pear pen pencil penny piano
picture pillow pilot pirate planet plum poem pond pony poppy prince puppy puzzle queen rabbit radio ranch ribbon ring
river road robin rocket roof room rope rose sailor sandwich school sea seat shark ship shirt shoe shop sister skirt sky
sock song soup spider spoon spy star station stone storm story street suitcase sunset table tailor tax teacher temple
tent ticket tiger toast torch tower town toy train tray tree truck trumpet tunnel uncle valley vase village
violin walnut watch wave wheel whisker window wing winter wish witch wizard worker
"""

_IRREGULAR = {
    "calf": "calves", "child": "children", "elf": "elves", "foot": "feet", "goose": "geese", "half": "halves",
    "hero": "heroes", "knife": "knives", "leaf": "leaves", "loaf": "loaves", "man": "men", "mouse": "mice",
    "potato": "potatoes", "quiz": "quizzes", "scarf": "scarves", "sheep": "sheep", "shelf": "shelves",
    "thief": "thieves", "tomato": "tomatoes", "tooth": "teeth", "wife": "wives", "wolf": "wolves", "woman": "women",
}  # fmt: skip


def plural(noun: str) -> str:
    """The plural of a noun: ``box`` → ``boxes``, ``city`` → ``cities``, ``day`` → ``days``, ``wolf`` → ``wolves``."""
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def plural_rows() -> list[dict[str, str]]:
    """Rows ``{"prompt": "one box, two ", "completion": "boxes"}``, sorted by noun."""
    nouns = sorted({*_REGULAR.split(), *_IRREGULAR})
    return [{"prompt": f"one {noun}, two ", "completion": plural(noun)} for noun in nouns]
