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

    slots: tuple[str, ...]
    """Values that the request names beside the person; the first is exchanged in a wrong answer."""
    wordings: Twins
    answers: Twins
    """Right answers, without a full stop; equally likely."""
    acts: dict[str, str]
    """Regular expressions of the words that do what was asked, in folded text."""
    demand: bool = False
    """Whether the answer asks for something, so that "please" fits."""


def _twins(*texts: str) -> Twins:
    """English and Turkish texts in turn."""
    return tuple({"en": en, "tr": tr} for en, tr in zip(texts[::2], texts[1::2], strict=True))


REQUESTS: dict[str, Kind] = {
    "greet": Kind(
        ("place",),
        _twins(
            "Greet {q} at the {place}.",
            "{q} {place.loc}. Selam ver.",
            "{q} is at the {place}. Say hello.",
            "{place.dat} gelen {q.dat} selam ver.",
            "Say hello to {q} at the {place}.",
            "{q} {place.dat} geldi, ona selam söyle.",
        ),
        _twins(
            "hello {q}, welcome to the {place}",
            "merhaba {q}, {place.dat} hoş geldin",
            "hi {q}, the {place} is beautiful today",
            "selam {q}, bugün {place} güzel",
            "good day {q}, the {place} is waiting for you",
            "iyi günler {q}, {place} seni bekliyor",
        ),
        {"en": r"hello|hi|good day|welcome|greetings", "tr": r"merhaba|selam|iyi günler|hoş geldin"},
    ),
    "invite": Kind(
        ("place", "day"),
        _twins(
            "Invite {q} to the {place} on {day}.",
            "{day} günü için {q.dat} davet yaz, yer {place}.",
            "You are at the {place} on {day}. Invite {q}.",
            "{day} günü {place.loc} olacaksın. {q.dat} davet gönder.",
            "{q} may come to the {place} on {day}. Invite {q}.",
            "{q} {day} günü {place.dat} gelsin. Davet et.",
        ),
        _twins(
            "come to the {place} on {day}, {q}",
            "{q}, {day} günü {place.dat} gel",
            "let us meet at the {place} on {day}, {q}",
            "{q}, {day} günü {place.loc} buluşalım",
            "{q}, I wait for you at the {place} on {day}",
            "{q}, {day} günü seni {place.loc} bekliyorum",
        ),
        {"en": r"come|meet|wait|join|visit", "tr": r"gel|gelir misin|buluşalım|bekliyorum|bekleriz"},
        demand=True,
    ),
    "thank": Kind(
        ("thing",),
        _twins(
            "Thank {q} for the {thing}.",
            "{thing} için {q.dat} teşekkür et.",
            "{q} brought the {thing}. Say thanks.",
            "{q} {thing} getirdi. Teşekkür et.",
            "Write thanks to {q} for the {thing}.",
            "{q.dat} bir teşekkür yaz, {thing} için.",
        ),
        _twins(
            "thank you for the {thing}, {q}",
            "{thing} için teşekkürler, {q}",
            "{q}, thanks for the {thing}",
            "{q}, {thing} için sağ ol",
            "the {thing} is beautiful, {q}, thank you",
            "{thing} çok güzel, {q}, teşekkürler",
        ),
        {"en": r"thank you|thanks|grateful", "tr": r"teşekkürler|teşekkür ederim|sağ ol"},
    ),
    "refuse": Kind(
        ("thing",),
        _twins(
            "{q} wants the {thing}. Refuse.",
            "{q} {thing} istiyor. Reddet.",
            "Tell {q} that you keep the {thing}.",
            "{q.dat} söyle: {thing} sende kalacak.",
            "{q} asks for the {thing}. Say no.",
            "{q} senden {thing} istedi. Hayır de.",
        ),
        _twins(
            "sorry, {q}, I need the {thing}",
            "üzgünüm, {q}, {thing} bana lazım",
            "no, {q}, the {thing} stays with me",
            "hayır, {q}, {thing} bende kalıyor",
            "no, {q}, I need the {thing} today",
            "hayır, {q}, {thing} bugün bana lazım",
        ),
        {"en": r"no|sorry|cannot", "tr": r"hayır|üzgünüm|veremem"},
    ),
    "ask": Kind(
        ("thing",),
        _twins(
            "Ask {q} for the {thing}.",
            "{q.abl} {thing} iste.",
            "You need the {thing} of {q}. Ask for it.",
            "Sana {q.gen} evindeki {thing} lazım, iste.",
            "The {thing} is with {q}. Ask for it.",
            "Aradığın {thing} şimdi {q.loc}. Ondan iste.",
        ),
        _twins(
            "bring the {thing}, {q}",
            "{q}, {thing} getir",
            "can you send me the {thing}, {q}",
            "{q}, bana {thing} gönderir misin",
            "{q}, I need the {thing}",
            "{q}, bana {thing} lazım",
        ),
        {"en": r"bring|send|need|give|lend", "tr": r"getir|getirir misin|gönderir misin|verir misin|ver|lazım"},
        demand=True,
    ),
    "apologise": Kind(
        ("thing",),
        _twins(
            "You broke the {thing} of {q}. Apologise.",
            "{q} sana {thing} vermişti, kırdın. Özür dile.",
            "Say sorry to {q} for the {thing}.",
            "{thing} için {q.abl} özür dile.",
            "You lost the {thing} of {q}. Say sorry.",
            "{q} sana {thing} vermişti, kaybettin. Özür dile.",
        ),
        _twins(
            "sorry for the {thing}, {q}",
            "{thing} için özür dilerim, {q}",
            "I am sorry, {q}, the {thing} was my mistake",
            "özür dilerim, {q}, {thing} benim hatam",
            "forgive me, {q}, the {thing} will be repaired",
            "affet, {q}, {thing} onarılacak",
        ),
        {"en": r"sorry|forgive", "tr": r"özür|üzgünüm|affet"},
    ),
    "describe": Kind(
        ("city", "job"),
        _twins(
            "Describe {q}, a {job} from {city}.",
            "{q} {city.loc} yaşayan bir {job}. Onu tanıt.",
            "{q} is a {job} and lives in {city}. Introduce {q}.",
            "{city.abl} {job} olan {q} kim? Tanıt.",
            "Introduce {q}, the {job} of {city}.",
            "Tanıt: {q}, {city.abl} bir {job}.",
        ),
        _twins(
            "{q} is a {job} from {city}",
            "{q}, {city.abl} bir {job}",
            "in {city} {q} works as a {job}",
            "{city.loc} {q} {job} olarak çalışıyor",
            "{q} lives in {city} and works as a {job}",
            "{q}, {city.loc} yaşıyor, mesleği {job}",
        ),
        {"en": r"is|works|lives", "tr": r"bir|çalışıyor|çalışır|yaşıyor|yaşar|mesleği"},
    ),
    "recommend": Kind(
        ("food", "day"),
        _twins(
            "{q} loves {food}. What do we cook on {day}?",
            "{q} {food.acc} sever, {day} günü ne pişirelim?",
            "On {day} {q} comes, who loves {food}. Recommend a meal.",
            "{food.acc} seven {q} {day} günü geliyor. Yemek öner.",
            "{q} comes on {day} and loves {food}. What do we cook?",
            "{q} {day} günü geliyor, {food.acc} sever. Ne pişirelim?",
        ),
        _twins(
            "on {day} cook {food} for {q}",
            "{day} günü {q} için {food} pişir",
            "let us cook {food} for {q} on {day}",
            "{q} için {day} günü {food} pişirelim",
            "{q} likes {food}, so cook it on {day}",
            "{q} {food.acc} sever, {day} günü pişir",
        ),
        {"en": r"cook|recommend|eat", "tr": r"pişir|pişirelim|öneririm|yiyelim"},
        demand=True,
    ),
    "inform": Kind(
        ("place", "day"),
        _twins(
            "The {place} is closed on {day}. Tell {q}.",
            "O {place} {day} günü kapalı. {q.dat} söyle.",
            "Tell {q} that the {place} is closed on {day}.",
            "{q.dat} söyle: {day} günü {place} kapalı.",
            "{q} must know: the {place} is closed on {day}.",
            "{q} bilsin: {place} {day} günü kapalı.",
        ),
        _twins(
            "{q}, the {place} is closed on {day}",
            "{q}, {place} {day} günü kapalı",
            "on {day} the {place} is not open, {q}",
            "{day} günü {place} açık değil, {q}",
            "do not go to the {place} on {day}, {q}",
            "{q}, {day} günü {place.dat} gitme",
        ),
        {"en": r"closed|not open|not go", "tr": r"kapalı|açık değil|açılmayacak|gitme"},
        demand=True,
    ),
}
USELESS = _twins("I do not know", "bilmiyorum", "{q} is here", "{q} burada")
REFUSALS = {"en": r"no|cannot", "tr": r"hayır|veremem|reddediyorum"}
"""Words that undo any act but a refusal."""

OPENERS = (*_twins("Dear friend, ", "Sevgili dostum, ", "My dear, ", "Canım, "), _twins("Please, ", "Lütfen, ")[0])
WARM = _twins("Dear neighbour, ", "Sevgili komşum, ")[0]
"""In place of "please" where the answer asks for nothing."""
PLAIN_OPENERS = _twins("Well, ", "Şimdi, ", "Listen here, ", "Burayı dinle, ")
CLOSERS = _twins(
    "With love.", "Sevgiler.", "Best wishes.", "İyi dilekler.", "Kind regards.", "İçten saygılar."
)  # fmt: skip
POLITE = {
    "en": (r"please", r"dear", r"kindly", r"with love", r"best wishes", r"kind regards", r"if you like"),
    "tr": (r"lütfen", r"sevgili|canım", r"rica ederim", r"sevgiler", r"iyi dilekler", r"saygılar", r"zahmet olmazsa"),
}
"""Regular expressions of markers of politeness; each counts once."""
SHORT_FILLERS = _twins(
    "The weather is sunny and warm.",
    "Hava güneşli ve ılık.",
    "The bus was late in the evening.",
    "Otobüs akşam gecikti.",
)
LONG_FILLERS = _twins(
    "In the evening bus 45 was 20 minutes late and the wind was very cold.",
    "Akşam 45 numaralı otobüs 20 dakika gecikti ve rüzgâr çok soğuktu.",
    "Prices are high, trains leave early, and rooms are empty at night.",
    "Fiyatlar yüksek, trenler erken kalkıyor ve gece odalar boş.",
)
RUDE: dict[str, tuple[str, ...]] = {"en": ("blorp", "snarlet", "grumpot"), "tr": ("zırtan", "hoppuk", "dırtıl")}
INSULT = {"en": "You {rude}!", "tr": "Seni {rude}!"}

FUNCTION_WORDS: dict[str, frozenset[str]] = {
    language: frozenset(text.split())
    for language, text in {
        "en": """a an the of to in on at for from with by and or but as is are was were be been am do does did it its
            i me my you your he she his her they us we let can will would who that this there here so not very""",
        "tr": """bir ve veya ya da de ile için ise ki mi mı mu mü misin bu şu o ben bana beni benim bende sen sana seni
            senin size siz biz onu ona ondan günü olarak olan gelen çok ol hoş ederim dilerim değil burada burayı gibi
            numaralı""",
    }.items()
}
