"""Names that columns of data sets have in several languages, by the role of their content."""

import re
import unicodedata
from functools import cache


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_WORDS = {
    "instruction": """instruction question prompt query soru talimat istem komut yonerge pregunta frage anweisung
        domanda pergunta instrucao instruccion consigne user human kullanici problem вопрос 问题""",
    "input": "input context passage background girdi baglam paragraf pasaj contexto kontext contexte contesto kontekst",
    "output": """output answer answers response completion reply cevap yanit cikti karsilik respuesta antwort reponse
        risposta resposta assistant asistan solution cozum ответ 答案""",
    "summary": "summary highlights abstract tldr ozet resumen zusammenfassung resume riassunto resumo headline",
    "long": "article document text metin haber dialogue dialog body content makale belge report texto artikel",
    "source": "source src kaynak",
    "target": "target tgt hedef translation ceviri",
    "chosen": "chosen preferred accepted winner better tercih secilen iyi",
    "rejected": "rejected dispreferred loser worse reddedilen kotu",
    "label": """label labels class category categories target topic sentiment intent emotion etiket sinif kategori konu
        duygu niyet tur sonuc durum polarity stance toxic toxicity spam clase categoria etiqueta etiquette sentimiento
        klasse kategorie stimmung etikett classe etichetta rotulo sentimento tag v1 y метка класс 标签 类别""",
    "grade": "rating stars star score puan yildiz derece nota note bewertung grade",
    "text": """text message content sentence review tweet comment body post document article utterance description title
        metin mesaj yorum cumle icerik ileti tumce aciklama govde gonderi haber sikayet texto mensaje comentario frase
        resena nachricht kommentar satz bewertungstext texte commentaire phrase avis testo messaggio commento recensione
        mensagem сообщение текст отзыв 文本 内容 v2 email mail sms""",
    "meta": """id ids uuid guid key index idx no num numara sira split fold part lang language dil source kaynak author
        yazar user username kullanici kanal channel date tarih time zaman timestamp saat year yil month ay url link
        adres name isim ad file dosya path city sehir il country ulke gender cinsiyet age yas device cihaz platform
        version surum role rol count sayi adet length len uzunluk score confidence guven likes begeni retweets annotator
        email phone telefon price fiyat airline market status""",
}
NAMES: dict[str, tuple[str, ...]] = {role: tuple(words.split()) for role, words in _WORDS.items()}
"""Role -> words in plain letters (see `plain`), the most common first."""
LANGUAGES = _set(
    "tr en de fr es it pt ru ar zh ja ko nl pl az ku fa el sv cs uk hi english turkish german french spanish italian "
    "russian arabic turkce ingilizce almanca fransizca ispanyolca deutsch"
)
"""Language codes that name the two columns of a translation."""
_LETTERS = str.maketrans("ıİşŞğĞçÇöÖüÜâÂîÎûÛ", "iIsSgGcCoOuUaAiIuU")
_CODES = _set("id idx index code no num number kod kodu numara value int")
_SECONDARY = _set("id ids uuid count len length lang language url date type score idx index no")


@cache
def plain(name: str) -> str:
    """A name in small letters without accents, its words joined by single spaces: `Mesaj_İçeriği` -> mesaj icerigi."""
    spaced = re.sub(r"(?<=[a-zçğıöşü])(?=[A-ZÇĞİÖŞÜ])", " ", name)
    folded = unicodedata.normalize("NFKD", spaced.translate(_LETTERS)).casefold()
    return " ".join(re.findall(r"[^\W_]+", "".join(c for c in folded if not unicodedata.combining(c))))


@cache
def rank(name: str, role: str) -> int | None:
    """How well a column's name fits a role: 0 and up by the order of `NAMES` for the whole name, 1000 and up where one
    of several words fits, also as its stem (yorumlar: yorum); None where it does not. Of `text.0` the path's last names
    count.
    """
    words = [word for word in plain(name).split() if not word.isdecimal()]
    known = NAMES[role]
    whole = " ".join(words)
    if whole in known:
        return known.index(whole)
    if role != "meta" and not _SECONDARY.isdisjoint(words):
        return None
    for word in words:
        bare = re.sub(r"\d+$", "", word)
        if bare in known:
            return 1000 + known.index(bare)
        if role != "meta" and (stem := next((k for k in known if len(k) >= 4 and bare.startswith(k)), None)):
            return 2000 + known.index(stem)
    return None


def is_code_of(name: str, role: str) -> bool:
    """Whether a name is that of a role's number: label_id, Class Index, kategori_no."""
    words = plain(name).split()
    rest = [word for word in words if word not in _CODES]
    return 0 < len(rest) < len(words) and rank(" ".join(rest), role) is not None


def is_language(name: str) -> bool:
    """Whether a name, or the last part of a path, is a language code."""
    return plain(name.rpartition(".")[2]) in LANGUAGES
