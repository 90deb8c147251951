"""The words of TinyReviews: pure data, written for this project.

Strings hold several words, tuples of strings several phrases. What a word is worth to VADER (Hutto and Gilbert 2014)
stands in :data:`POSITIVE` and :data:`NEGATIVE`; a word that is in neither has no valence there. Words that look neutral
often have one (friend, novel, hand, play, pay), so a test compares the whole vocabulary with VADER's lexicon.
"""

from __future__ import annotations

from dataclasses import dataclass

POSITIVE = {
    "admired": 2.3, "amazing": 2.8, "attractive": 1.9, "best": 3.2, "better": 1.9, "bright": 1.9, "brilliant": 2.8,
    "charming": 2.8, "cheerful": 2.5, "clean": 1.7, "clear": 1.6, "clever": 2.0, "comfortable": 2.3, "confident": 2.2,
    "courteous": 2.3, "creative": 1.9, "delicious": 2.7, "easy": 1.9, "elegant": 2.1, "energetic": 1.9,
    "enjoyed": 2.3, "entertaining": 1.9, "excellent": 2.7, "exciting": 2.2, "fantastic": 2.6, "fascinating": 2.5,
    "fresh": 1.3, "friendly": 2.2, "funny": 1.9, "generous": 2.3, "good": 1.9, "great": 3.1, "happy": 2.7,
    "helpful": 1.8, "honest": 2.3, "impressive": 2.3, "inspiring": 1.8, "interesting": 1.7, "kind": 2.4, "like": 1.5,
    "liked": 1.8, "lively": 1.9, "love": 3.2, "loved": 2.9, "lovely": 2.8, "nice": 1.8, "original": 1.3,
    "peaceful": 2.2, "perfect": 2.7, "pleasant": 2.3, "proud": 2.1, "recommend": 1.5, "relaxed": 2.2, "relaxing": 2.2,
    "rich": 2.6, "robust": 1.4, "romantic": 1.7, "safe": 1.9, "superb": 3.1, "sweet": 2.0, "talented": 2.3,
    "thrilling": 2.1, "useful": 1.9, "wonderful": 2.7,
}  # fmt: skip
"""Words that VADER finds positive, with their valences."""

NEGATIVE = {
    "angry": -2.3, "annoying": -1.7, "appalling": -1.5, "arrogant": -2.2, "awful": -2.0, "bad": -2.5, "bitter": -1.8,
    "bored": -1.1, "boring": -1.3, "broken": -2.1, "careless": -1.5, "chaotic": -2.2, "confusing": -0.9,
    "dangerous": -2.1, "defective": -1.9, "depressing": -1.6, "despised": -1.7, "difficult": -1.5, "dirty": -1.9,
    "disappointing": -2.2, "disgusting": -2.4, "dishonest": -2.7, "disliked": -1.7, "dismal": -3.0, "dreadful": -1.9,
    "dull": -1.7, "embarrassing": -1.6, "exhausting": -1.5, "faulty": -1.3, "frustrating": -1.9, "gloomy": -0.6,
    "hate": -2.7, "hated": -3.2, "hopeless": -2.0, "horrible": -2.5, "horrid": -2.5, "hostile": -1.6,
    "impatient": -1.2, "impolite": -1.6, "incompetent": -2.1, "lazy": -1.5, "lonely": -1.5, "lousy": -2.5,
    "meaningless": -1.9, "miserable": -2.2, "moody": -1.5, "nasty": -2.6, "noisy": -0.7, "pathetic": -2.7,
    "poor": -2.1, "ridiculous": -1.5, "rotten": -2.3, "rude": -2.0, "sad": -2.1, "selfish": -2.1, "stressful": -2.3,
    "stupid": -2.4, "terrible": -2.1, "ugly": -2.3, "uncomfortable": -1.6, "unfriendly": -1.5, "unhappy": -1.8,
    "unkind": -1.6, "unpleasant": -2.1, "upset": -1.6, "useless": -1.8, "weak": -1.9, "worse": -2.1, "worst": -3.1,
    "worthless": -1.9,
}  # fmt: skip
"""Words that VADER finds negative, with their valences."""

STRONG = (
    "wonderful excellent superb brilliant amazing fantastic perfect fascinating thrilling awful terrible horrible "
    "horrid dreadful appalling disgusting useless ridiculous meaningless worthless hopeless"
)
"""Adjectives that one does not call very: absolutely."""
DEGREES = "very really so quite rather fairly extremely"
STRONG_DEGREES = "really absolutely"


@dataclass(frozen=True)
class Adjectives:
    """What something can be called, by sentiment."""

    positive: str
    neutral: str
    negative: str

    def of(self, polarity: int) -> str:
        """The words of a polarity: 0 positive, 1 neutral, 2 negative."""
        return (self.positive, self.neutral, self.negative)[polarity]


THINGS = Adjectives(
    "great good wonderful excellent lovely superb brilliant amazing fantastic perfect pleasant nice impressive",
    "simple plain ordinary average typical traditional modern unusual",
    "bad awful terrible horrible horrid dreadful poor disappointing unpleasant annoying lousy dismal nasty miserable "
    "appalling pathetic hopeless worthless",
)
"""Said of every thing."""

PEOPLE = Adjectives(
    "great good wonderful lovely brilliant excellent nice pleasant charming amazing",
    "young old quiet busy",
    "awful terrible horrible horrid dreadful bad unpleasant annoying miserable hopeless pathetic",
)
"""Said of all people."""

STAFF = Adjectives(
    "friendly kind helpful cheerful courteous generous honest relaxed",
    "quick slow tall talkative",
    "rude angry lazy careless impatient unfriendly unkind impolite dishonest moody hostile selfish",
)
"""Said of people at work, besides."""

ARTISTS = Adjectives(
    "talented confident funny clever creative",
    "famous foreign local loud",
    "incompetent lazy careless arrogant dull stupid embarrassing",
)
"""Said of people who make something, besides."""

FEELINGS = Adjectives(
    "happy proud cheerful relaxed", "sleepy hungry thirsty quiet", "sad angry unhappy upset lonely bored miserable"
)

NOT_GOOD = "good nice great impressive pleasant"
NOT_BAD = "bad boring dull terrible"
NOT_NICE = "nice friendly good clever helpful"
NOT_RUDE = "bad rude lazy"

FAMILY = "brother sister wife husband mother father"
OTHERS = "uncle aunt cousin boss"
MORE_OTHERS = "parents neighbours colleagues children grandparents"
TIMES = ("last week", "last month", "last year", "last summer", "last night", "yesterday")
SOON = ("soon", "next week", "next year", "some day")
SHORT_TAILS = ("in every way", "on the whole", "this time", "most of the time")
LONG_TAILS = ("from start to finish", "from beginning to end")
INTRODUCTIONS = ("all in all ,", "in the end ,", "on the whole ,")
FEW = "two three four five six"
MANY = "ten twelve twenty thirty forty fifty sixty"


@dataclass(frozen=True)
class Parts:
    """Parts of a thing, or the people one meets there, that share their adjectives.

    Attributes:
        singular: nouns with "a" or "an".
        mass: nouns without an article of their own.
        plural: nouns in the plural.
        own: adjectives besides the general ones.
        people: whether they are people.
        opening: whether a review may begin with them ("the actors in this film …").
    """

    singular: str
    mass: str
    plural: str
    own: Adjectives
    people: bool = False
    opening: bool = True


@dataclass(frozen=True)
class Kind:
    """A kind of thing that is reviewed, with the words that belong to it.

    Attributes:
        name: of the kind.
        things: nouns for it, found in no other kind: they reveal the kind.
        called: what else one may call it: "in the end , it was a great story".
        before: adjectives that tell one from another, neutral.
        where: "the plot in this film": the preposition.
        places: phrases that tell one from another.
        done: what one has done with it, in the past tense, before the noun.
        to_do: what one may do again, in the infinitive.
        perfect: past participle with its object, after "has not".
        own: adjectives besides the general ones.
        comparatives, superlatives: neutral ones.
        present: whether reviews may be in the present tense.
        lasting: whether it has a beginning and an end.
        facts: whole neutral sentences; FEW and MANY stand for numbers.
        parts: its parts and people.
    """

    name: str
    things: str
    called: str
    before: str
    where: str
    places: tuple[str, ...]
    done: tuple[str, ...]
    to_do: tuple[str, ...]
    perfect: str
    own: Adjectives
    comparatives: str
    superlatives: str
    present: bool
    lasting: bool
    facts: tuple[str, ...]
    parts: tuple[Parts, ...]


_FILM = Kind(
    name="film",
    things="film movie documentary drama",
    called="story",
    before="new old short long foreign famous",
    where="in",
    places=("about the sea", "about two brothers", "about a small town", "on television"),
    done=("watched", "saw"),
    to_do=("watch it", "see it"),
    perfect="seen it",
    own=Adjectives(
        "funny exciting romantic entertaining original",
        "long short slow",
        "boring confusing depressing stupid ridiculous",
    ),
    comparatives="longer shorter slower",
    superlatives="longest shortest",
    present=True,
    lasting=True,
    facts=(
        "it lasted for about FEW hours",
        "the tickets cost about MANY pounds",
        "it was on television until midnight",
    ),
    parts=(
        Parts(
            "plot ending script title",
            "dialogue music",
            "scenes songs dances",
            Adjectives("funny exciting romantic original", "long short slow", "boring confusing depressing ridiculous"),
        ),
        Parts("director", "", "actors dancers", ARTISTS, people=True),
    ),
)

_BOOK = Kind(
    name="book",
    things="book paperback biography memoir",
    called="story",
    before="new old short long thick famous",
    where="in",
    places=("about the sea", "about a famous family", "about the north", "from the library"),
    done=("read", "finished"),
    to_do=("read it", "open it"),
    perfect="read it",
    own=Adjectives(
        "fascinating clever interesting original inspiring",
        "long short slow thick thin",
        "boring confusing depressing meaningless",
    ),
    comparatives="longer shorter thicker",
    superlatives="longest shortest",
    present=True,
    lasting=True,
    facts=("it has about MANY pages of maps", "i read it in about FEW days", "it cost about MANY pounds in the shop"),
    parts=(
        Parts(
            "plot ending chapter cover style",
            "",
            "pages chapters drawings poems maps",
            Adjectives(
                "fascinating clever interesting original", "long short historical", "boring confusing depressing"
            ),
        ),
        Parts("author narrator", "", "characters", ARTISTS, people=True),
    ),
)

_RESTAURANT = Kind(
    name="restaurant",
    things="restaurant cafe bistro pizzeria",
    called="place",
    before="new old small big local famous",
    where="at",
    places=("near the station", "by the river", "on the corner", "in the old town"),
    done=("ate at", "visited", "tried"),
    to_do=("eat there", "go there"),
    perfect="been there",
    own=Adjectives("clean relaxing romantic lively", "small large dark loud", "dirty noisy gloomy chaotic"),
    comparatives="cheaper bigger smaller louder",
    superlatives="cheapest oldest smallest",
    present=True,
    lasting=False,
    facts=(
        "we paid about MANY pounds for the meal",
        "there were about FEW people at the tables",
        "it closes on monday and on tuesday",
    ),
    parts=(
        Parts(
            "dessert salad curry pizza menu",
            "bread soup coffee wine",
            "noodles vegetables sauces portions",
            Adjectives("delicious fresh rich sweet", "hot salty spicy dry", "disgusting bitter rotten"),
        ),
        Parts("waiter waitress chef", "", "waiters cooks", STAFF, people=True),
    ),
)

_HOTEL = Kind(
    name="hotel",
    things="hotel hostel motel inn",
    called="place",
    before="new old small big cheap expensive",
    where="at",
    places=("near the station", "by the lake", "on the hill", "in the old town"),
    done=("stayed at", "booked", "chose"),
    to_do=("stay there", "go there"),
    perfect="been there",
    own=Adjectives("comfortable clean peaceful safe", "small large dark quiet", "dirty noisy gloomy uncomfortable"),
    comparatives="cheaper bigger smaller older",
    superlatives="cheapest oldest smallest",
    present=True,
    lasting=False,
    facts=(
        "we stayed there for about FEW nights",
        "we paid about MANY pounds for the room",
        "it is FEW minutes from the beach",
    ),
    parts=(
        Parts(
            "room bed bathroom kitchen garden",
            "",
            "towels beds curtains pillows carpets windows",
            Adjectives("comfortable clean bright", "small large dark", "dirty ugly uncomfortable"),
        ),
        Parts("receptionist porter", "", "cleaners porters", STAFF, people=True),
    ),
)

_PHONE = Kind(
    name="phone",
    things="phone telephone smartphone handset",
    called="device",
    before="new old small big cheap expensive",
    where="on",
    places=("from the market", "from the shop", "for older people", "with two cameras"),
    done=("bought", "ordered", "borrowed"),
    to_do=("buy it", "use it"),
    perfect="used it",
    own=Adjectives(
        "useful elegant robust attractive", "small heavy light thin fast", "useless defective faulty ugly frustrating"
    ),
    comparatives="cheaper bigger smaller faster",
    superlatives="cheapest fastest smallest",
    present=True,
    lasting=False,
    facts=(
        "it cost about MANY pounds in the shop",
        "i have had it for about FEW months",
        "it came in a box with a charger",
    ),
    parts=(
        Parts(
            "screen battery camera keyboard",
            "software",
            "buttons speakers menus apps microphones",
            Adjectives("useful bright robust", "small heavy thin fast slow", "useless broken defective faulty weak"),
        ),
        Parts("seller", "", "assistants", STAFF, people=True, opening=False),
    ),
)

_TRIP = Kind(
    name="trip",
    things="trip tour cruise excursion",
    called="journey",
    before="short long cheap expensive",
    where="on",
    places=("to the islands", "along the coast", "through the mountains", "to the castle"),
    done=("booked", "joined", "went on"),
    to_do=("take it", "do it"),
    perfect="been on it",
    own=Adjectives("exciting relaxing peaceful thrilling", "long short slow", "dangerous exhausting boring stressful"),
    comparatives="longer shorter cheaper",
    superlatives="longest shortest cheapest",
    present=False,
    lasting=True,
    facts=(
        "it lasted for about FEW days",
        "we paid about MANY pounds for the tickets",
        "the bus left from the harbour at noon",
    ),
    parts=(
        Parts(
            "route boat bus museum harbour",
            "food",
            "beaches villages roads churches mountains",
            Adjectives("relaxing exciting peaceful", "long narrow quiet", "dangerous dirty gloomy"),
        ),
        Parts("guide driver captain", "", "sailors guides", STAFF, people=True),
    ),
)

_CONCERT = Kind(
    name="concert",
    things="concert recital gig opera",
    called="evening",
    before="short long local open-air",
    where="at",
    places=("in the park", "at the castle", "in the church", "by the lake"),
    done=("heard", "attended", "went to"),
    to_do=("hear it", "go there"),
    perfect="heard it",
    own=Adjectives("lively thrilling energetic romantic", "long short loud slow", "boring noisy chaotic depressing"),
    comparatives="longer shorter louder",
    superlatives="longest loudest shortest",
    present=False,
    lasting=True,
    facts=(
        "it lasted for about FEW hours",
        "the tickets cost about MANY pounds",
        "there were about MANY people in the hall",
    ),
    parts=(
        Parts(
            "hall stage stadium choir",
            "sound music",
            "songs drums violins trumpets dances",
            Adjectives("lively thrilling energetic", "loud quiet dark", "noisy boring chaotic"),
        ),
        Parts("singer pianist drummer", "", "musicians singers", ARTISTS, people=True),
    ),
)

_COURSE = Kind(
    name="course",
    things="course class workshop seminar",
    called="experience",
    before="new short long online evening",
    where="in",
    places=("at the college", "for beginners", "about computers", "at the museum"),
    done=("took", "attended", "joined"),
    to_do=("take it", "do it"),
    perfect="done it",
    own=Adjectives(
        "useful interesting inspiring easy",
        "long short basic practical",
        "useless boring confusing difficult frustrating",
    ),
    comparatives="longer shorter slower",
    superlatives="longest shortest",
    present=False,
    lasting=True,
    facts=(
        "it lasted for about FEW weeks",
        "there were about MANY students in the room",
        "the lessons began at noon on monday",
    ),
    parts=(
        Parts(
            "lesson textbook lecture classroom",
            "homework",
            "exercises slides lessons lectures tests",
            Adjectives("useful clear interesting", "long short slow practical", "useless boring confusing difficult"),
        ),
        Parts("teacher tutor", "", "students teachers", STAFF, people=True),
    ),
)

TRAIN_KINDS = (_FILM, _BOOK, _RESTAURANT, _HOTEL, _PHONE, _TRIP)
TEST_KINDS = (_CONCERT, _COURSE)
"""Held out of the prompts of the train split. Texts about them are part of the language all the same."""
