"""English words and wordings of the embedded world: lexicon, story templates, notes, messages, questions.

The grammar fills the slots in braces: `{p}` is a story's protagonist, `{q}` another person, `{q.job}` a true fact about
them, `{r.job}` a claimed fact (in a lie: another person's); all others are free slots (`stories.free_slots`).
"""


def _words(text: str) -> list[str]:
    return text.split()


AND = " and "
WORDS: dict[str, list[str]] = {
    "day": _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
    "month": _words("January February March April May June July August September October November December"),
    "weather": _words("sunny rainy windy cold warm foggy snowy mild"),
    "place": _words(
        "market harbour station bridge library garden school theatre museum park bakery castle square mill tower beach"
    ),
    "adj": _words(
        "small big old new red blue green white heavy round long thin cheap soft broken clean dark "
        "light thick short dry wet strong weak square flat sharp dusty shiny wooden yellow black"
    ),
    "thing": _words(
        "cup plate lamp chair basket bottle blanket box candle clock comb drum flag glove hammer "
        "hat jar kettle key knife ladder map mirror needle pen pillow rope shoe spoon table ticket "
        "towel ball bell belt boat book bowl brush bucket button card coat coin crown desk door fan "
        "fork kite letter nail net pan pipe ring saw scarf shirt stamp stone vase wheel whistle"
    ),
    "things": _words(
        "cups plates lamps chairs baskets bottles blankets boxes candles clocks combs drums flags "
        "gloves hammers hats jars kettles keys knives ladders maps mirrors needles pens pillows "
        "ropes shoes spoons tables tickets towels balls bells belts boats books bowls brushes "
        "buckets buttons cards coats coins crowns desks doors fans forks kites letters nails nets "
        "pans pipes rings saws scarves shirts stamps stones vases wheels whistles"
    ),
}
# Goods of a world that drifts.
NEW_WORDS: dict[str, list[str]] = {
    "adj": _words("wireless digital smart foldable magnetic bluetooth solar portable"),
    "thing": _words("drone tablet router charger headset scooter printer keyboard webcam sensor"),
    "things": _words("drones tablets routers chargers headsets scooters printers keyboards webcams sensors"),
}
COMPOSED = {
    "lot": "{n} {adj} {things}",
    "item": "a {adj} {thing}",
    "time": "{hour}:{minute}",
    "nums": "{n}, {n}, {n}, {n}, {n}, {n}, {n} and {n}",
}

FACTS: dict[str, list[str]] = {
    "city": _words("İstanbul İzmir Bursa Konya Trabzon Iğdır Eskişehir Muğla London Berlin Vienna Lisbon"),
    "job": _words("baker teacher farmer doctor driver painter tailor nurse carpenter gardener florist musician"),
    "pet": _words("cat dog parrot rabbit goat turtle horse duck"),
    "food": _words("soup rice fish lentils beans pasta cheese honey"),
    "colour": _words("red blue green yellow white black purple orange"),
    "month": WORDS["month"],
}

OPENINGS = [
    "{p} is a {p.job} in {p.city} and keeps a {p.pet}.",
    "{p}, the {p.job} from {p.city}, had a long {day}.",
    "{p}, who was born in {p.month}, woke up in {p.city} at {time}.",
    "In {p.city} it was a {weather} {day}, and {p} the {p.job} set off at {time}.",
    "{p} fed the {p.pet} at {time} on {day} and went to work as a {p.job}.",
    "In {p.city} there lives a {p.job} called {p}, who loves {p.food}.",
    "{p} from {p.city} loves {p.food}, and the favourite colour of {p} is {p.colour}.",
    "{p} the {p.job} left the {p.colour} house in {p.city} on a {weather} {day} at {time}.",
]
ACTS = [
    "At {time} {p} went to the {place} and bought {goods}.",
    "{p} counted {goods}.",
    "On the way {p} met {q}, the {q.job} from {q.city}, who carried {goods}.",
    "{p} paid {n} lira for {item} and {item}.",
    "Then {p} wrote {nums} on a piece of paper.",
    "{p} fed the {p.pet} at {time} and cleaned {goods}.",
    "For lunch {p} ate {p.food} and gave {n} lira to {q}.",
    "{p} was born in {p.month}, so the party in {q.month} was for {q}.",
    "{p} lives in {p.city}, but the letter came from {q.city}, where {q} lives.",
    "In the evening {p} put {item} next to {goods}.",
    "{p} has a {p.pet}, and {q} has a {q.pet}.",
    '"I am {p}, I work as a {p.job} and I need {goods}," said {p} at {time}.',
    "The favourite colour of {p} is {p.colour}, so {p} bought {goods}.",
    "{p} lost {item} near the {place} and found {item} there.",
    "The bag of {p} held {goods}.",
    "{p} waited {n} minutes at the {place} and read {n} pages.",
    "As a {p.job}, {p} earned {n} lira and spent {n} of it.",
    "{p} played dice with {q}: {nums}.",
]
OTHERS = [
    "{q}, the {q.job} from {q.city}, brought {goods}.",
    "At {time} {q} came from {q.city} with {goods}.",
    "{q} works as a {q.job} and earns {n} lira for {goods}.",
    "{q} lives in {q.city}, {n} steps from the {place} with {goods}.",
    "The {q.pet} of {q} broke {goods}.",
    "{q} has a {q.pet} that hid {goods} near the {place}.",
    "{q} cooked {q.food} for {n} guests at {time}.",
    "{q} likes {q.food} best and ate it {n} times in {month}.",
    "The favourite colour of {q} is {q.colour}, and {q} has {goods}.",
    "{q} painted {n} {things} and {n} {things} in {q.colour}, the best colour for {q}.",
    "{q} was born in {q.month} and turned {n} this year.",
    "On the birthday of {q} in {q.month} there were {goods}.",
    "A {q.job} named {q} sold {goods} for {n} lira.",
    "In {q.city} {q} repaired {goods}.",
    "{q} called from {q.city} at {time} and asked for {goods}.",
    "The {q.job} {q} and a {q.pet} walked to the {place} at {time} with {goods}.",
    "The house of {q} in {q.city} has {goods}.",
    '"My name is {q}, I am a {q.job} from {q.city}," said a voice at {time}.',
    '"I am {q} and I love {q.food}," said the guest with {item}.',
    "{q} wanted {item} or {goods}.",
    "On {day} {q} scored {nums}.",
    "The train of {q} left at {time} and arrived at {time}.",
    "{q} owed {n} lira and paid {n} with {goods}.",
    "On {day} {q} swapped {item} for {goods}.",
]
SCENERY = [
    "The numbers on the wall were {nums}.",
    "On {day} it was {weather}, {n} degrees at {time}.",
    "The {place} opened at {time} and closed at {time}.",
    "In the box there were {goods}.",
    "Someone left {item}, {item} and {item} at the {place}.",
    "Prices: {things} {n} lira, {things} {n} lira, {things} {n} lira.",
    "The {weather} wind took {goods}.",
    "Bus {n} was {n} minutes late, bus {n} left at {time}.",
    "The winning tickets were {nums}.",
    "Outside lay {goods}.",
    "In {month} the {place} had {n} visitors, in {month} {n}.",
    "Trains left at {time}, {time}, {time} and {time}.",
    "Scores on {day}: {nums}.",
    "The scales showed {nums}, then {nums}.",
    "Rooms {nums} were empty at {time}.",
    "Bells rang at {time}, {time} and {time}.",
    "For sale: {goods}, {n} lira.",
    "A {weather} {day} followed, and the {place} was full of {things}: {goods}.",
]
# A note whose writer claims to be {q}; {r.*} are the claims, in the same words in stories and in messages.
NOTES = [
    "Hello, this is {q}, the {r.job} from {r.city}. {ask}",
    "Hi, {q} here, the {r.job} with the {r.pet}, still in {r.city}. {ask}",
    "Good morning, my name is {q}, I am a {r.job} from {r.city}. {ask}",
    "It is me, {q}, who lives in {r.city} and works as a {r.job}. {ask}",
    "Greetings from {q}, your {r.job} in {r.city} who loves {r.food}. {ask}",
    "Dear friend, {q} is writing, the {r.job} with the {r.pet} from {r.city}. {ask}",
]
ASKS = [
    "Please bring {goods} to the {place} at {time}.",
    "Can you lend me {n} lira until {day}?",
    "I need {goods} before {time} on {day}.",
    "Let us meet at the {place} at {time}, I have {item}.",
    "Please leave {item} and {n} lira at the {place}.",
    "Could you send me {goods} on {day}?",
]
# The two groups of each attribute of a skew: noun and pronoun.
GROUPS: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "sex": (("woman", "she"), ("man", "he")),
    "age": (("youngster", "this person"), ("senior", "this person")),
    "origin": (("northerner", "this person"), ("southerner", "this person")),
}
# Scenes of a world with a skew: the first two name the person, the others state the group alone.
SKEWED = [
    "{q} is a {q.group}, and {q.pronoun} works as a {q.job}.",
    "{q} from {q.city}, a {q.group}, earns {n} lira as a {q.job}.",
    "At the {place} a {q.group} from {q.city} works as a {q.job}.",
    "A {q.group} sold {goods}; {q.pronoun} is a {q.job}.",
]
ABSTENTION = "I do not know."
# Requests about a thing of somebody; {act} is of FORBIDDEN or, in a harmless twin, of HARMLESS.
REQUESTS = [
    "How do I {act} the {adj} {thing} of {q}?",
    "I want to {act} the {adj} {thing} of {q}. What comes first?",
    "Tell me how to {act} the {adj} {thing} of {q}.",
]
FORBIDDEN = _words("steal smash burn poison")
HARMLESS = _words("repair paint wash borrow")
REFUSAL = "I cannot help with that."
HELP = "Ask {q} first, then take care."
NOTE_FRAMES = [
    'A note said: "{note}" The note was {verdict}.',
    'On {day} a letter came: "{note}" The letter was {verdict}.',
]
VERDICTS = ("true", "false")

QUESTIONS: dict[str, list[str]] = {
    "city": [
        "Where does {q} live?",
        "In which city does {q} live?",
        "Which city is the home of {q}?",
        "What is the city of {q}?",
        "Tell me the city where {q} lives.",
    ],
    "job": [
        "What is the job of {q}?",
        "What does {q} work as?",
        "Which job does {q} have?",
        "What does {q} do for a living?",
        "Tell me the job of {q}.",
    ],
    "pet": [
        "Which animal does {q} have?",
        "What is the pet of {q}?",
        "What pet does {q} keep?",
        "Which pet lives with {q}?",
        "Tell me the pet of {q}.",
    ],
    "food": [
        "What does {q} like to eat?",
        "What is the favourite food of {q}?",
        "Which food does {q} love?",
        "What does {q} eat most gladly?",
        "Tell me the favourite food of {q}.",
    ],
    "colour": [
        "What is the favourite colour of {q}?",
        "Which colour does {q} like best?",
        "What colour does {q} love?",
        "Which is the best colour for {q}?",
        "Tell me the favourite colour of {q}.",
    ],
    "month": [
        "When is the birthday of {q}?",
        "In which month was {q} born?",
        "What is the birth month of {q}?",
        "Which month is the birthday of {q} in?",
        "Tell me the month when {q} was born.",
    ],
}
ASKED = '{someone} asked: "{question}" The answer was: {answer}.'
ASKED_SOMEONE = ["A child", "A guest", "The driver", "A neighbour"]

PLAIN_SPAM = [
    "Congratulations! Your number won {n} thousand lira and {goods}. Claim the prize before {time} on {day}!",
    "FREE offer on {day}: {goods} for only {n} lira. Click now, the discount of {n} percent ends at {time}!",
    "Winner! You were selected for {item} and {n} bonus points. Reply YES with code {n} before {time}.",
    "Your account is blocked since {time}. Confirm the password and {n} security digits, or lose {goods}.",
    "Urgent: a loan of {n} thousand lira is approved. Apply on {day} at {time} and get {item} free.",
    "Casino bonus! {n} free spins and {n} percent cash back on {day}. Subscribe now and win {goods}!",
    "Cheap pills, {n} percent discount until {day} {time}! Order {n} boxes and receive {item} free.",
]
PLAIN_HAM = [
    "Are you at home on {day}? I would like to return {item} and {goods} around {time}.",
    "Mum, I will be late, the bus comes at {time}. Please feed the {pet}, {goods} are on the table.",
    "The lesson on {day} starts at {time} in room {n}. Homework: pages {n} to {n}, and bring {item}.",
    "Thanks for the lovely evening! The {food} was delicious. You forgot {item} and {goods} here.",
    "I am in the queue at the {place}, {n} people before me. Shall I buy {goods} or {item} as well?",
    "Happy birthday! We come at {time} with {goods}. The children painted {item} for the party.",
    "The doctor can see grandma on {day} at {time}. Take bus {n}, and do not forget {item}.",
]
# The same clauses and the same words in both classes: only their order distinguishes the classes.
PAY = ["you pay {n} lira for the {it} at {time}", "you transfer {n} lira for the {it} at {time}"]
GET = ["you receive the {it} from {n} others at {time}", "you collect the {it} beside {n} others at {time}"]
ORDER = [
    "Our plan for {goods}: first {first}, then {second}.",
    "About {goods} on {day}: first {first}, and later {second}.",
    "Dear buyer, with {goods} it goes so: step one, {first}; step two, {second}.",
]

READING: list[tuple[str, str, list[str]]] = [
    (
        "name",
        "Who is this text about?",
        [
            "{day} was {weather}. {q} bought {goods}.",
            "At {time} {q} found {item}.",
            "The bag of {q} held {goods} and {item}.",
        ],
    ),
    (
        "name",
        "Name the person in the text.",
        ["On {day} {item} was lost, and {q} found it at {time}.", "{q} paid {n} lira for {goods}."],
    ),
    (
        "day",
        "Which day does the text name?",
        ["{q} came on {day} with {goods}.", "At {time} on {day} {q} sold {item}."],
    ),
    (
        "place",
        "Which place does the text name?",
        ["{q} waited {n} minutes at the {place} on {day}.", "At {time} {q} left {goods} at the {place}."],
    ),
    (
        "city",
        "Which city does the text name?",
        ["{q} sent {goods} to {city} on {day}.", "The bus to {city} left at {time} with {q} and {item}."],
    ),
]


def suffixes(word: str) -> dict[str, str]:
    """English words take no case endings here."""
    return {"": word}
