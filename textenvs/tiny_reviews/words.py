"""The words of TinyReviews: pure data, written for this project.

Strings hold several words, tuples of strings several phrases. What a word is worth to VADER (Hutto and Gilbert 2014)
stands in :data:`POSITIVE` and :data:`NEGATIVE`; a word that is in neither has no valence there. Words that look neutral
often have one (friend, novel, hand, play, pay), so a test compares the whole vocabulary with VADER's lexicon.
"""

from __future__ import annotations

from dataclasses import dataclass

POSITIVE = {
    "admired": 2.3, "amazing": 2.8, "attractive": 1.9, "best": 3.2, "better": 1.9, "bright": 1.9, "brilliant": 2.8,
    "charming": 2.8, "cheerful": 2.5, "clean": 1.7, "clever": 2.0, "comfortable": 2.3, "confident": 2.2,
    "courteous": 2.3, "delicious": 2.7, "elegant": 2.1, "enjoyed": 2.3, "entertaining": 1.9, "excellent": 2.7,
    "exciting": 2.2, "fantastic": 2.6, "fascinating": 2.5, "fresh": 1.3, "friendly": 2.2, "funny": 1.9,
    "generous": 2.3, "good": 1.9, "great": 3.1, "happy": 2.7, "helpful": 1.8, "honest": 2.3, "impressive": 2.3,
    "inspiring": 1.8, "interesting": 1.7, "kind": 2.4, "like": 1.5, "liked": 1.8, "love": 3.2, "loved": 2.9,
    "lovely": 2.8, "nice": 1.8, "original": 1.3, "peaceful": 2.2, "perfect": 2.7, "pleasant": 2.3, "proud": 2.1,
    "recommend": 1.5, "relaxed": 2.2, "relaxing": 2.2, "rich": 2.6, "robust": 1.4, "romantic": 1.7, "safe": 1.9,
    "superb": 3.1, "sweet": 2.0, "talented": 2.3, "thrilling": 2.1, "useful": 1.9, "wonderful": 2.7,
}  # fmt: skip
"""Words that VADER finds positive, with their valences."""

NEGATIVE = {
    "angry": -2.3, "annoying": -1.7, "appalling": -1.5, "arrogant": -2.2, "awful": -2.0, "bad": -2.5, "bitter": -1.8,
    "bored": -1.1, "boring": -1.3, "broken": -2.1, "careless": -1.5, "chaotic": -2.2, "confusing": -0.9,
    "dangerous": -2.1, "defective": -1.9, "depressing": -1.6, "despised": -1.7, "difficult": -1.5, "dirty": -1.9,
    "disappointing": -2.2, "disgusting": -2.4, "dishonest": -2.7, "disliked": -1.7, "dismal": -3.0, "dreadful": -1.9,
    "dull": -1.7, "faulty": -1.3, "frustrating": -1.9, "gloomy": -0.6, "hate": -2.7, "hated": -3.2, "hopeless": -2.0,
    "horrible": -2.5, "horrid": -2.5, "hostile": -1.6, "impatient": -1.2, "impolite": -1.6, "incompetent": -2.1,
    "lazy": -1.5, "lonely": -1.5, "lousy": -2.5, "meaningless": -1.9, "miserable": -2.2, "moody": -1.5, "nasty": -2.6,
    "noisy": -0.7, "pathetic": -2.7, "poor": -2.1, "ridiculous": -1.5, "rotten": -2.3, "rude": -2.0, "sad": -2.1,
    "selfish": -2.1, "stupid": -2.4, "terrible": -2.1, "ugly": -2.3, "uncomfortable": -1.6, "unfriendly": -1.5,
    "unhappy": -1.8, "unkind": -1.6, "unpleasant": -2.1, "upset": -1.6, "useless": -1.8, "weak": -1.9, "worse": -2.1,
    "worst": -3.1, "worthless": -1.9,
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


GENERAL = Adjectives(
    "great good wonderful excellent lovely superb brilliant amazing fantastic perfect pleasant nice impressive",
    "ordinary average typical unusual",
    "bad awful terrible horrible horrid dreadful poor disappointing unpleasant annoying lousy dismal nasty miserable "
    "appalling pathetic hopeless worthless",
)
"""Said of everything and everybody. What else is said depends on the class of the noun:"""

STORIES = Adjectives(
    "exciting interesting funny entertaining fascinating inspiring original thrilling",
    "long short slow simple modern traditional",
    "boring confusing depressing stupid ridiculous meaningless difficult frustrating",
)
PLACES = Adjectives(
    "comfortable clean bright peaceful safe romantic relaxing attractive",
    "small large dark quiet narrow",
    "dirty ugly noisy gloomy uncomfortable dangerous chaotic",
)
FOOD = Adjectives("delicious fresh rich sweet", "hot salty spicy dry", "disgusting bitter rotten")
DEVICES = Adjectives("useful robust elegant clever", "light heavy thin fast", "useless broken defective faulty weak")
PEOPLE = Adjectives(
    "friendly kind helpful cheerful courteous generous honest talented confident charming",
    "young old busy tall talkative famous",
    "rude angry lazy careless impatient unfriendly unkind impolite dishonest moody hostile selfish arrogant "
    "incompetent",
)
FEELINGS = Adjectives(
    "happy proud cheerful relaxed", "sleepy hungry thirsty quiet", "sad angry unhappy upset lonely bored miserable"
)
"""Of those who write the review, and their families."""

COMPARATIVES = Adjectives("better", "simpler stranger", "worse")
SUPERLATIVES = Adjectives("best", "simplest strangest", "worst")
NOT_GOOD = "good nice great pleasant impressive"
NOT_BAD = "bad boring dull terrible"

LOVED = Adjectives("loved liked enjoyed admired", "noticed discussed mentioned", "hated disliked despised")

FAMILY = "brother sister wife husband mother father"
OTHERS = "uncle aunt cousin boss"
MORE_OTHERS = "parents neighbours colleagues children grandparents"
TIMES = ("last week", "last month", "last year", "last summer", "last night", "yesterday")
SOON = ("soon", "next week", "next year", "some day")
TAILS = ("in every way", "on the whole", "this time", "from the start")
INTRODUCTIONS = ("all in all ,", "in the end ,", "on the whole ,")
NUMBERS = "ten twelve twenty thirty forty fifty sixty"


@dataclass(frozen=True)
class Parts:
    """Parts of a thing, or people one meets there.

    Attributes:
        singular: nouns with "a" or "an".
        mass: nouns without an article of their own.
        plural: nouns in the plural.
        own: their class of adjectives.
        opening: whether a review may begin with them ("the actors in this film …").
    """

    singular: str
    mass: str
    plural: str
    own: Adjectives
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
        own: its class of adjectives.
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
    own: Adjectives
    parts: tuple[Parts, ...]


_FILM = Kind(
    name="film",
    things="film movie documentary drama",
    called="story",
    before="new old short long foreign famous",
    where="in",
    places=("about the sea", "about two brothers"),
    done=("watched", "saw"),
    to_do=("watch it", "see it"),
    own=STORIES,
    parts=(
        Parts("plot ending script title", "dialogue music", "scenes songs dances effects", STORIES),
        Parts("director", "", "actors dancers", PEOPLE),
    ),
)

_BOOK = Kind(
    name="book",
    things="book paperback biography memoir",
    called="story",
    before="new old short long thick famous",
    where="in",
    places=("about the sea", "about two brothers"),
    done=("read", "finished"),
    to_do=("read it", "open it"),
    own=STORIES,
    parts=(
        Parts("plot ending chapter cover style", "", "pages chapters drawings poems maps", STORIES),
        Parts("author narrator", "", "characters", PEOPLE),
    ),
)

_RESTAURANT = Kind(
    name="restaurant",
    things="restaurant cafe bistro pizzeria",
    called="place",
    before="new old small big local famous",
    where="at",
    places=("near the station", "by the river", "in the city"),
    done=("ate at", "visited", "tried"),
    to_do=("eat there", "go there"),
    own=PLACES,
    parts=(
        Parts("dessert salad curry pizza", "bread soup coffee wine", "noodles vegetables sauces portions", FOOD),
        Parts("waiter waitress chef", "", "waiters cooks", PEOPLE),
    ),
)

_HOTEL = Kind(
    name="hotel",
    things="hotel hostel motel inn",
    called="place",
    before="new old small big cheap expensive",
    where="at",
    places=("near the station", "by the river", "in the city"),
    done=("stayed at", "booked", "chose"),
    to_do=("stay there", "go there"),
    own=PLACES,
    parts=(
        Parts("room bed bathroom kitchen garden", "", "towels beds curtains pillows carpets windows", PLACES),
        Parts("receptionist porter", "", "cleaners porters", PEOPLE),
    ),
)

_PHONE = Kind(
    name="phone",
    things="phone telephone smartphone handset",
    called="device",
    before="new old small big cheap expensive",
    where="on",
    places=("from the market", "from the shop", "for older people"),
    done=("bought", "ordered", "borrowed"),
    to_do=("buy it", "use it"),
    own=DEVICES,
    parts=(
        Parts("screen battery camera keyboard", "", "buttons speakers microphones cables", DEVICES),
        Parts("seller", "", "assistants", PEOPLE, opening=False),
    ),
)

_TRIP = Kind(
    name="trip",
    things="trip tour cruise excursion",
    called="journey",
    before="short long cheap expensive",
    where="on",
    places=("to the islands", "along the coast", "to the castle"),
    done=("booked", "joined", "went on"),
    to_do=("take it", "do it"),
    own=STORIES,
    parts=(
        Parts("route boat bus museum harbour", "", "beaches villages roads churches mountains", PLACES),
        Parts("guide driver captain", "", "sailors guides", PEOPLE),
    ),
)

_CONCERT = Kind(
    name="concert",
    things="concert recital gig opera",
    called="evening",
    before="short long local open-air",
    where="at",
    places=("near the station", "by the river", "in the city"),
    done=("heard", "attended", "went to"),
    to_do=("hear it", "go there"),
    own=STORIES,
    parts=(
        Parts("song choir", "sound music", "songs drums violins trumpets dances", STORIES),
        Parts("singer pianist drummer", "", "musicians singers", PEOPLE),
    ),
)

_COURSE = Kind(
    name="course",
    things="course class workshop seminar",
    called="experience",
    before="new short long online evening",
    where="in",
    places=("at the college", "for beginners", "at the museum"),
    done=("took", "attended", "joined"),
    to_do=("take it", "do it"),
    own=STORIES,
    parts=(
        Parts("lesson textbook lecture", "", "exercises slides lessons lectures tests", STORIES),
        Parts("teacher tutor", "", "students teachers", PEOPLE),
    ),
)

TRAIN_KINDS = (_FILM, _BOOK, _RESTAURANT, _HOTEL, _PHONE, _TRIP)
TEST_KINDS = (_CONCERT, _COURSE)
"""Held out of the prompts of the train split. Texts about them are part of the language all the same."""
