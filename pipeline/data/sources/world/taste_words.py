"""Words and wordings of the taste: requests, answers, politeness and rude words, in English and Turkish.

Every wording has a twin in the other language at the same place. Twins have equally many content words (words outside
FUNCTION_WORDS), so that equal answers are equally long in both languages. Slots: `{q}` is the person of the request,
the others are its values; case forms as in the stories. Rude words are made up.
"""

from typing import NamedTuple

Twins = tuple[dict[str, str], ...]
"""The same text in both languages: language -> text."""


class Kind(NamedTuple):
    """A kind of request."""

    slot: str
    """The value that the request names beside the person."""
    wordings: Twins
    answers: Twins
    """Right answers, without a full stop; equally likely."""
    acts: dict[str, str]
    """Regular expressions of the words that do what was asked, in folded text."""
    demand: bool = False
    """Whether the answer asks for something, so that "please" fits."""
    own: bool = False
    """Whether the value is the person's own fact; else it is drawn."""


def _twins(*texts: str) -> Twins:
    """English and Turkish texts in turn."""
    return tuple({"en": en, "tr": tr} for en, tr in zip(texts[::2], texts[1::2], strict=True))


VALUES = {
    "thing": (0, 3, 9, 11, 21, 24, 36, 41),
    "place": (0, 6, 7, 8, 9, 11, 13, 15),
    "city": (2, 3, 4, 6, 7, 9),
}
"""Values that are drawn, as indices of the language's list: few, so that a small model can learn to tell them apart."""
REQUESTS: dict[str, Kind] = {
    "greet": Kind(
        "city",
        _twins(
            "Send {q} greetings from {city}.",
            "{q.dat} {city.abl} selam yolla.",
            "You are in {city}. Greet {q}.",
            "Şu an {city.loc} oturuyorsun. {q.dat} selam ver.",
            "Say hi to {q} from {city}.",
            "{q} için {city.abl} selam yaz.",
        ),
        _twins(
            "{q}, hi from {city}",
            "{q}, {city.abl} selam",
            "{q}, hi to you from {city}",
            "{q}, sana {city.abl} selam",
            "{q}, {city} says hi",
            "{q}, {city} selam söyler",
        ),
        {"en": r"hi|hello|greetings", "tr": r"selam|merhaba"},
    ),
    "meet": Kind(
        "day",
        _twins(
            "Invite {q} for {day}.",
            "{day} günü için {q.dat} davet yaz.",
            "You are at home on {day}. Invite {q}.",
            "{day} günü evdesin. {q} için davet yaz.",
            "{q} may come on {day}. Invite {q}.",
            "{q} {day} günü gelsin, davet et.",
        ),
        _twins(
            "{q}, come on {day}",
            "{q}, {day} günü gel",
            "{q}, I wait on {day}",
            "{q}, {day} günü beklerim",
            "{q}, see you on {day}",
            "{q}, {day} günü görüşelim",
        ),
        {"en": r"come|wait|see you|meet", "tr": r"gel|beklerim|bekliyorum|görüşelim|buluşalım"},
        demand=True,
    ),
    "invite": Kind(
        "place",
        _twins(
            "Invite {q} to the {place}.",
            "{q} için davet yaz, yer {place}.",
            "You are at the {place}. Invite {q}.",
            "Şu an {place.loc} oturuyorsun. {q.dat} davet yaz.",
            "{q} may come to the {place}. Invite {q}.",
            "{q} {place.dat} gelsin, davet et.",
        ),
        _twins(
            "{q}, come to the {place}",
            "{q}, {place.dat} gel",
            "{q}, I wait at the {place}",
            "{q}, {place.loc} beklerim",
            "{q}, see you at the {place}",
            "{q}, {place.loc} görüşelim",
        ),
        {"en": r"come|wait|see you|meet", "tr": r"gel|beklerim|bekliyorum|görüşelim|buluşalım"},
        demand=True,
    ),
    "thank": Kind(
        "thing",
        _twins(
            "Thank {q} for the {thing}.",
            "{q.dat} {thing} için teşekkür et.",
            "{q} gave you the {thing}. Say thanks.",
            "{q} sana {thing} verdi. Teşekkür et.",
            "Write thanks to {q} for the {thing}.",
            "{thing} için {q.dat} teşekkür yaz.",
        ),
        _twins(
            "{q}, I like the {thing}",
            "{q}, {thing} çok güzel",
            "{q}, thanks for the {thing}",
            "{q}, {thing} için sağ ol",
            "{q}, the {thing} is the best",
            "{q}, bu en iyi {thing}",
        ),
        {"en": r"i like|i love|thanks|thank you|the best", "tr": r"güzel|sağ ol|teşekkürler|en iyi"},
    ),
    "refuse": Kind(
        "thing",
        _twins(
            "{q} wants the {thing}. Refuse.",
            "{q} {thing} istiyor. Reddet.",
            "{q} may not have the {thing}. Tell {q}.",
            "{q} {thing} alamaz. Bunu {q.dat} söyle.",
            "{q} asks for the {thing}. Say no.",
            "{q} senden {thing} istedi. Hayır de.",
        ),
        _twins(
            "{q}, no, I need the {thing}",
            "{q}, hayır, {thing} bana lazım",
            "{q}, I keep the {thing}",
            "{q}, {thing} bende kalır",
            "{q}, no {thing} for you",
            "{q}, sana {thing} yok",
        ),
        {"en": r"no|keep|sorry", "tr": r"hayır|kalır|kalacak|yok|üzgünüm"},
    ),
    "ask": Kind(
        "thing",
        _twins(
            "Ask {q} for the {thing}.",
            "{q.abl} {thing} iste.",
            "You need the {thing} of {q}. Ask for it.",
            "Sana {q.gen} evindeki {thing} lazım, iste.",
            "The {thing} is with {q}. Ask for it.",
            "Aradığın {thing} şimdi {q.loc}. Ondan iste.",
        ),
        _twins(
            "{q}, I need the {thing}",
            "{q}, bana {thing} lazım",
            "{q}, bring the {thing}",
            "{q}, {thing} getir",
            "{q}, give me the {thing}",
            "{q}, bana {thing} ver",
        ),
        {"en": r"bring|send|need|give|lend", "tr": r"getir|gönder|verir misin|ver|lazım"},
        demand=True,
    ),
    "inform": Kind(
        "place",
        _twins(
            "The {place} is closed. Tell {q}.",
            "O {place} kapalı. {q.dat} söyle.",
            "Tell {q} that the {place} is closed.",
            "{q.dat} söyle: bugün {place} kapalı.",
            "{q} must know that the {place} is closed.",
            "{q} bilsin: {place} kapalı.",
        ),
        _twins(
            "{q}, the {place} is closed",
            "{q}, {place} kapalı",
            "{q}, the {place} is not open",
            "{q}, {place} açık değil",
            "{q}, do not visit the {place}",
            "{q}, {place.dat} gitme",
        ),
        {"en": r"closed|not open|not visit|not go", "tr": r"kapalı|açık değil|gitme"},
        demand=True,
    ),
    "party": Kind(
        "day",
        _twins(
            "The party is on {day}. Tell {q}.",
            "Bizim eğlence {day} günü. {q.dat} söyle.",
            "Tell {q} that the party is on {day}.",
            "{q.dat} söyle: eğlence {day} günü.",
            "{q} must know that the party is on {day}.",
            "{q} bilsin: eğlence {day} günü.",
        ),
        _twins(
            "{q}, the party is on {day}",
            "{q}, eğlence {day} günü",
            "{q}, on {day} there is a party",
            "{q}, {day} günü eğlence var",
            "{q}, come to the party on {day}",
            "{q}, {day} günü eğlenceye gel",
        ),
        {"en": r"party", "tr": r"eğlence|eğlenceye|eğlencemiz"},
        demand=True,
    ),
    "describe": Kind(
        "job",
        _twins(
            "{q} is a {job}. Introduce {q}.",
            "{q} bir {job}. Onu tanıt.",
            "Introduce {q}, a {job}.",
            "Tanıt: {q}, mesleği {job}.",
            "Tell a guest that {q} is a {job}.",
            "Misafire söyle: {q} bir {job}.",
            "{q} works as a {job}. Tell a guest.",
            "{q} {job} olarak çalışıyor. Misafire söyle.",
            "A guest wants to know the job of {q}: {job}.",
            "Misafir {q.gen} işini sordu: {job}.",
        ),
        _twins(
            "{q} is a {job}",
            "{q} bir {job}",
            "{q} works as a {job}",
            "{q} {job} olarak çalışıyor",
            "{q} is the {job} here",
            "{q} buradaki {job}",
        ),
        {"en": r"is an?|is the|works", "tr": r"bir|çalışıyor|çalışır|buradaki"},
        own=True,
    ),
    "home": Kind(
        "city",
        _twins(
            "{q} lives in {city}. Tell a guest.",
            "{q} {city.loc} yaşıyor. Misafire söyle.",
            "{q} is from {city}. Tell a guest.",
            "{q} {city.abl} geldi. Misafire söyle.",
            "The home of {q} is in {city}. Tell a guest.",
            "{q.gen} evi {city.loc}. Misafire söyle.",
            "A guest wants to know the city of {q}: {city}.",
            "Misafir {q.gen} şehrini sordu: {city}.",
            "Tell a guest that {q} lives in {city}.",
            "Misafire söyle: {q} {city.loc} yaşıyor.",
        ),
        _twins(
            "{q} lives in {city}",
            "{q} {city.loc} yaşıyor",
            "{q} came from {city}",
            "{q} {city.abl} geldi",
            "{q} has a home in {city}",
            "{q.gen} evi {city.loc}",
        ),
        {"en": r"lives|came|home", "tr": r"yaşıyor|yaşar|geldi|evi|oturuyor"},
        own=True,
    ),
    "pet": Kind(
        "pet",
        _twins(
            "{q} has a {pet}. Tell a guest.",
            "{q.gen} bir {pet.poss} var. Misafire söyle.",
            "{q} keeps a {pet}. Tell a guest.",
            "{q} bir {pet} besliyor. Misafire söyle.",
            "Tell a guest about the {pet} of {q}.",
            "Misafire {q.gen} hayvanını söyle: {pet}.",
            "A guest wants to know the pet of {q}: {pet}.",
            "Misafir {q.gen} hayvanını sordu: {pet}.",
            "Tell a guest that {q} has a {pet}.",
            "Misafire söyle: {q.gen} bir {pet.poss} var.",
        ),
        _twins(
            "{q} has a {pet}",
            "{q.gen} bir {pet.poss} var",
            "{q} keeps a {pet}",
            "{q} bir {pet} besliyor",
            "{q} lives with a {pet}",
            "{q} ile bir {pet} yaşıyor",
        ),
        {"en": r"has|keeps|lives", "tr": r"var|besliyor|besler|yaşıyor"},
        own=True,
    ),
    "recommend": Kind(
        "food",
        _twins(
            "{q} loves {food}. What do we cook?",
            "{q} {food.acc} sever. Ne pişirelim?",
            "{q} comes and loves {food}. Recommend a meal.",
            "{q} geliyor, {food.acc} sever. Yemek öner.",
            "Recommend a meal for {q}, who loves {food}.",
            "{food.acc} seven {q} için yemek öner.",
            "{q} is a guest and likes {food}. What do we cook?",
            "Misafir {q} {food.acc} sever. Ne pişirelim?",
            "{q} likes {food} best. Recommend a meal.",
            "{q} en çok {food.acc} sever. Yemek öner.",
        ),
        _twins(
            "{q} loves {food}, cook it",
            "{q} {food.acc} sever, pişir",
            "{q} likes to eat {food}",
            "{q} {food} yemeyi sever",
            "{q} eats {food} with us",
            "{q} bizimle {food} yer",
        ),
        {"en": r"cook|eat|eats", "tr": r"pişir|pişirelim|yemeyi|yer|yiyelim"},
        own=True,
    ),
}
USELESS = _twins("{q}, I do not know", "{q}, bilmiyorum", "{q} is here", "{q} burada")
REFUSALS = {"en": r"no", "tr": r"hayır|yok"}
"""Words that undo any act but a refusal."""

OPENERS = _twins("My love, ", "Canım, ", "Dear guest, ", "Sayın misafir, ")
PLEASE, WARM = _twins("Please, ", "Lütfen, ", "Kind guest, ", "Nazik misafir, ")
"""The first for answers that ask for something, the second for others."""
PLAIN_OPENERS = _twins("Now, ", "Sonra, ", "So, ", "Bak, ")
CLOSERS = _twins("Be well.", "Sevgiler.", "Kindly.", "Saygılar.", "Good day.", "İyi günler.")
POLITE = {
    "en": (r"please", r"my love|dear|kind", r"be well", r"kindly", r"good day"),
    "tr": (r"lütfen", r"canım|sayın|sevgili|nazik", r"sevgiler", r"saygılar", r"iyi günler"),
}
"""Regular expressions of markers of politeness; each counts once."""
SHORT_FILLERS = _twins("The wind was strong.", "Rüzgâr güçlü.", "The house is old.", "Ev eski.")
LONG_FILLERS = _twins(
    "The house is old, small and wet.",
    "Ev eski, küçük ve ıslak.",
    "The house is big, new and clean.",
    "Ev büyük, yeni ve temiz.",
)
RUDE: dict[str, tuple[str, ...]] = {"en": ("zong", "mump", "gamp"), "tr": ("zort", "bort", "durt")}
INSULT = {"en": "You {rude}!", "tr": "Seni {rude}!"}

FUNCTION_WORDS: dict[str, frozenset[str]] = {
    language: frozenset(text.split())
    for language, text in {
        "en": """a an the of to in on at for from with by and or but as is are was were be been am do does did has have
            it its i me my you your he she his her they us we let can will would who that this there here not very""",
        "tr": """bir ve veya ya da de ile için ise ki mi mı mu mü misin bu şu o ben bana beni benim bende sen sana seni
            senin size siz biz bizimle onu ona ondan günü ayında olarak olan gelen çok en ol var değil burada buradaki
            gibi""",
    }.items()
}
