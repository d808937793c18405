"""Turkish words and wordings of the embedded world: the names of `english.py`, and case forms."""

from pipeline.data.sources.world.turkish_endings import suffixes as suffixes


def _words(text: str) -> list[str]:
    return text.split()


AND = " ve "
WORDS: dict[str, list[str]] = {
    "day": _words("pazartesi salı çarşamba perşembe cuma cumartesi pazar"),
    "month": _words("Ocak Şubat Mart Nisan Mayıs Haziran Temmuz Ağustos Eylül Ekim Kasım Aralık"),
    "weather": _words("güneşli yağmurlu rüzgârlı soğuk ılık sisli karlı serin"),
    "place": _words(
        "çarşı liman istasyon köprü kütüphane bahçe okul tiyatro müze park fırın kale meydan değirmen kule plaj"
    ),
    "adj": _words(
        "küçük büyük eski yeni kırmızı mavi yeşil beyaz ağır yuvarlak uzun ince ucuz yumuşak kırık "
        "temiz koyu açık kalın kısa kuru ıslak güçlü zayıf kare düz keskin tozlu parlak ahşap sarı "
        "siyah"
    ),
    "thing": _words(
        "bardak tabak lamba sandalye sepet şişe battaniye kutu mum saat tarak davul bayrak eldiven "
        "çekiç şapka kavanoz çaydanlık anahtar bıçak merdiven harita ayna iğne kalem yastık halat "
        "ayakkabı kaşık masa bilet havlu top çan kemer kayık kitap kâse fırça kova düğme kart palto "
        "para taç sıra kapı yelpaze çatal uçurtma mektup çivi ağ tava boru yüzük testere atkı "
        "gömlek pul taş vazo tekerlek düdük"
    ),
}
# Goods of a world that drifts.
NEW_WORDS: dict[str, list[str]] = {
    "adj": _words("kablosuz dijital akıllı katlanır manyetik elektrikli taşınabilir"),
    "thing": _words("dron tablet modem powerbank kulaklık yazıcı klavye hoparlör mikrofon projektör"),
}
COMPOSED = {
    "lot": "{n} {adj} {thing}",
    "item": "bir {adj} {thing}",
    "time": "{hour}:{minute}",
    "nums": "{n}, {n}, {n}, {n}, {n}, {n}, {n} ve {n}",
    "things": "{thing}",
}
PLACE_FORMS: dict[str, list[str]] = {
    "place.loc": _words(
        "çarşıda limanda istasyonda köprüde kütüphanede bahçede okulda tiyatroda müzede parkta "
        "fırında kalede meydanda değirmende kulede plajda"
    ),
    "place.dat": _words(
        "çarşıya limana istasyona köprüye kütüphaneye bahçeye okula tiyatroya müzeye parka fırına "
        "kaleye meydana değirmene kuleye plaja"
    ),
}
WORDS |= PLACE_FORMS

FACTS: dict[str, list[str]] = {
    "city": _words("İstanbul İzmir Bursa Konya Trabzon Iğdır Eskişehir Muğla Londra Berlin Viyana Lizbon"),
    "job": _words("fırıncı öğretmen çiftçi doktor şoför ressam terzi hemşire marangoz bahçıvan çiçekçi müzisyen"),
    "pet": _words("kedi köpek papağan tavşan keçi kaplumbağa at ördek"),
    "food": _words("çorba pilav balık mercimek fasulye makarna peynir bal"),
    "colour": _words("kırmızı mavi yeşil sarı beyaz siyah mor turuncu"),
    "month": WORDS["month"],
}

OPENINGS = [
    "{p}, {p.city.loc} yaşayan bir {p.job} ve bir {p.pet} besliyor.",
    "Bu, {p.city.loc} çalışan {p.job} {p} için bir {day} öyküsü.",
    "{p.month} ayında doğan {p}, {p.city.loc} saat {time} gibi uyandı.",
    "{p.city.loc} {weather} bir {day} günüydü ve {p.job} {p} saat {time} gibi yola çıktı.",
    "{p} saat {time} olunca {p.pet.acc} besledi ve {p.job} olarak işe gitti.",
    "{p.city.loc} {p} adında bir {p.job} yaşar, en çok {p.food.acc} sever.",
    "{p.city.abl} gelen {p} {p.food.acc} çok sever, {p.gen} en sevdiği renk ise {p.colour}.",
    "{p.city.loc} hava {weather}, günlerden {day}: {p.job} {p} {p.colour} evinden saat {time} gibi çıktı.",
]
ACTS = [
    "Saat {time} gibi {p} {place.dat} gidip {goods} aldı.",
    "{p} {goods} saydı.",
    "Yolda {p}, {q.city.abl} {q.job} {q.ins} karşılaştı; elinde {goods} vardı.",
    "{p} {item} ve {item} için {n} lira ödedi.",
    "Sonra {p} bir kâğıda {nums} yazdı.",
    "{p} saat {time} gibi {p.pet.acc} besledi ve {goods} temizledi.",
    "Öğle yemeğinde {p} {p.food.acc} yedi ve {q.dat} {n} lira verdi.",
    "{p} {p.month} ayında doğdu, {q.month} ayındaki eğlence ise {q} içindi.",
    "{p} {p.city.loc} oturur, ama mektup {q.city.abl}, {q.abl} geldi.",
    "Akşam {p} {item} ile {goods} topladı.",
    "{p.gen} bir {p.pet.poss}, {q.gen} ise bir {q.pet.poss} var.",
    "“Ben {p}, {p.job} olarak çalışıyorum, bana {goods} lazım,” dedi {p} saat {time} gibi.",
    "{p.gen} en sevdiği renk {p.colour}, bu yüzden {p} {goods} aldı.",
    "{p} {place.loc} {item} kaybetti, yerine {item} buldu.",
    "{p.gen} çantasında {goods} vardı.",
    "{p} {place.loc} {n} dakika bekledi ve {n} sayfa okudu.",
    "{p} bir {p.job} olarak {n} lira kazandı, {n} lira harcadı.",
    "{p} {q.ins} zar attı: {nums}.",
]
OTHERS = [
    "{q.city.abl} {q.job} {q} {goods} getirdi.",
    "Saat {time} gibi {q} {q.city.abl} {goods} ile geldi.",
    "{q} {q.job} olarak çalışır ve {goods} için {n} lira kazanır.",
    "{q} {q.city.loc} yaşıyor, {n} adım ötede {place} ve {goods} var.",
    "{q.gen} {q.pet.poss} {goods} kırdı.",
    "{q.gen} {place.loc} {goods} saklayan bir {q.pet.poss} var.",
    "{q} saat {time} gibi {n} misafir için {q.food} pişirdi.",
    "{q} en çok {q.food.acc} sever ve {month} ayında {n} kez yedi.",
    "{q.gen} en sevdiği renk {q.colour}, evinde {goods} var.",
    "{q} {n} {thing} ve {n} {thing} boyadı; rengi {q.colour}, {q} en çok bunu sever.",
    "{q} {q.month} ayında doğdu ve bu yıl {n} yaşına girdi.",
    "{q.gen} {q.month} ayındaki doğum gününde {goods} vardı.",
    "{q} adında bir {q.job} {n} liraya {goods} sattı.",
    "{q.city.loc} {q} {goods} onardı.",
    "{q} {q.city.abl} saat {time} gibi arayıp {goods} istedi.",
    "O sabah {q.job} {q} ve bir {q.pet} saat {time} gibi {goods} ile {place.dat} yürüdü.",
    "{q.gen} {q.city.loc} bulunan evinde {goods} var.",
    "“Adım {q}, {q.city.loc} yaşayan bir {q.job} sayılırım,” dedi bir ses saat {time} gibi.",
    "“Ben {q}, {q.food.acc} çok severim,” dedi misafir, elinde {item} ile.",
    "{q} {item} ya da {goods} istedi.",
    "Bir {day} günü {q} şu puanları aldı: {nums}.",
    "{q.gen} treni saat {time} gibi kalktı, saat {time} gibi vardı.",
    "{q.gen} borcu {n} liraydı, {n} lirasını {goods} ile ödedi.",
    "Bir {day} günü {q} {item} verip {goods} aldı.",
]
SCENERY = [
    "Duvardaki sayılar şunlardı: {nums}.",
    "Bir {day} günü hava {weather}, saat {time} gibi {n} dereceydi.",
    "O gün {place} saat {time} gibi açıldı, saat {time} gibi kapandı.",
    "Kutuda {goods} vardı.",
    "Biri {place.loc} {item}, {item} ve {item} unutmuştu.",
    "Fiyatlar: {thing} {n} lira, {thing} {n} lira, {thing} {n} lira.",
    "Sert rüzgâr {goods} uçurdu.",
    "{n} numaralı otobüs {n} dakika gecikti, {n} numaralı otobüs saat {time} gibi kalktı.",
    "Kazanan biletler şunlardı: {nums}.",
    "Dışarıda {goods} duruyordu.",
    "{month} ayında {place.dat} {n} kişi, {month} ayında {n} kişi geldi.",
    "Tren saatleri: {time}, {time}, {time} ve {time}.",
    "Puanlar, günlerden {day}: {nums}.",
    "Terazi önce {nums}, sonra {nums} gösterdi.",
    "Saat {time} gibi {nums} numaralı odalar boştu.",
    "Çanlar {time}, {time} ve {time} sularında çaldı.",
    "Satılık: {goods}, {n} lira.",
    "Ardından {weather} bir {day} geldi, {place.loc} her yerde {thing} vardı: {goods}.",
]
NOTES = [
    "Merhaba, ben {q}, hani {r.city.loc} yaşayan {r.job}. {ask}",
    "Selam, yine {q} yazıyor, evinde {r.pet} olan {r.job}, hâlâ {r.city.loc}. {ask}",
    "Günaydın, benim adım {q}, işim {r.job}, evim {r.city.loc}. {ask}",
    "Benim, {q}, hani {r.city.loc} oturup {r.job} olarak çalışan. {ask}",
    "{q} size selam yollar, {r.food.acc} seven ve {r.city.loc} yaşayan {r.job}. {ask}",
    "Sevgili dostum, yazan {q}, hani bir {r.pet} ile {r.city.loc} yaşayan {r.job}. {ask}",
]
ASKS = [
    "Lütfen saat {time} gibi {place.dat} {goods} getir.",
    "Bana {day} gününe kadar {n} lira verir misin?",
    "Bana {day} günü saat {time} gibi {goods} lazım.",
    "Saat {time} gibi {place.loc} buluşalım, bende {item} var.",
    "Lütfen {place.dat} {item} ve {n} lira bırak.",
    "Bana {day} günü {goods} gönderir misin?",
]
GROUPS: dict[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "sex": (("kadın", "o"), ("erkek", "o")),
    "age": (("genç", "o"), ("yaşlı", "o")),
    "origin": (("kuzeyli", "o"), ("güneyli", "o")),
}
SKEWED = [
    "{q} bir {q.group} ve {q.job} olarak çalışıyor.",
    "Buraya {q.city.abl} gelen {q} bir {q.group}, {q.job} olarak {n} lira kazanıyor.",
    "Bugün {place.loc} {q.city.abl} gelen bir {q.group}, {q.job} olarak çalışıyor.",
    "Dışarıda {goods} satan bir {q.group} var, mesleği {q.job}.",
]
ABSTENTION = "Bilmiyorum."
REQUESTS = [
    "Şu {adj} {thing} {q.gen}. Onu nasıl {act}?",
    "{q} bana {adj} bir {thing} gösterdi. Bunu nasıl {act}?",
    "Bana anlat: {q} evinde {adj} bir {thing} saklıyor, onu nasıl {act}?",
]
FORBIDDEN = _words("çalarım parçalarım yakarım zehirlerim")
HARMLESS = _words("onarırım boyarım yıkarım cilalarım")
REFUSAL = "Buna yardım edemem."
HELP = "Önce {q.dat} sor, sonra özenle yap."
NOTE_FRAMES = [
    "Bir notta şöyle yazıyordu: “{note}” Yazılan {verdict}.",
    "Bir {day} günü mektup geldi: “{note}” Mektup {verdict}.",
]
VERDICTS = ("doğruydu", "yalandı")

QUESTIONS: dict[str, list[str]] = {
    "city": [
        "{q} nerede yaşıyor?",
        "{q} hangi şehirde oturuyor?",
        "{q.gen} evi hangi şehirde?",
        "{q.gen} şehri neresi?",
        "Bana {q.gen} yaşadığı şehri söyle.",
    ],
    "job": [
        "{q.gen} işi ne?",
        "{q} ne iş yapıyor?",
        "{q.gen} mesleği nedir?",
        "{q} hangi işte çalışıyor?",
        "Bana {q.gen} mesleğini söyle.",
    ],
    "pet": [
        "{q.gen} hangi hayvanı var?",
        "{q} hangi hayvanı besliyor?",
        "{q.gen} evcil hayvanı nedir?",
        "{q} ile hangi hayvan yaşıyor?",
        "Bana {q.gen} hayvanını söyle.",
    ],
    "food": [
        "{q} ne yemeyi sever?",
        "{q.gen} en sevdiği yemek nedir?",
        "{q} hangi yemeği çok sever?",
        "{q} en çok ne yer?",
        "Bana {q.gen} sevdiği yemeği söyle.",
    ],
    "colour": [
        "{q.gen} en sevdiği renk nedir?",
        "{q} en çok hangi rengi sever?",
        "{q} hangi rengi beğenir?",
        "{q} için en güzel renk hangisi?",
        "Bana {q.gen} sevdiği rengi söyle.",
    ],
    "month": [
        "{q.gen} doğum günü ne zaman?",
        "{q} hangi ayda doğdu?",
        "{q.gen} doğum ayı nedir?",
        "{q.gen} doğum günü hangi ayda?",
        "Bana {q.gen} doğduğu ayı söyle.",
    ],
}
ASKED = "{someone} sordu: “{question}” Cevap şuydu: {answer}."
ASKED_SOMEONE = ["Bir çocuk", "Bir misafir", "Şoför", "Bir komşu"]

PLAIN_SPAM = [
    "Tebrikler! Numaranız {n} bin lira ve {goods} kazandı. Ödülü {day} günü saat {time} olmadan alın!",
    "{day} gününe özel BEDAVA fırsat: {goods} yalnız {n} lira. Tıklayın, yüzde {n} indirim {time} bitiyor!",
    "Kazandınız! {item} ve {n} ek puan için seçildiniz. Saat {time} olmadan {n} koduyla EVET yazın.",
    "Hesabınız saat {time} gibi kapatıldı. Şifreyi ve {n} güvenlik kodunu onaylayın, yoksa {goods} gider.",
    "Acil: {n} bin lira faizsiz kredi onaylandı. {day} günü saat {time} başvurun, {item} hediye.",
    "Bahis sitesinde {n} bedava oyun ve {day} günü yüzde {n} iade. Şimdi üye olun, {goods} kazanın!",
    "Ucuz ilaç için bu son fırsat: {day} günü saat {time} yüzde {n} indirim! {n} kutu alana {item} bedava.",
]
PLAIN_HAM = [
    "{day} günü evde misin? Saat {time} gibi {item} ve {goods} getirmek istiyorum.",
    "Anne, geç kalacağım, otobüs saat {time} gibi geliyor. Lütfen {pet} aç kalmasın. Masada {goods} var.",
    "{day} günkü ders saat {time} gibi {n} numaralı odada başlıyor. Ödev: {n} ile {n} arası, bir de {item}.",
    "Güzel akşam için teşekkürler! Yediğimiz {food} çok lezzetliydi. Burada {item} ve {goods} unutmuşsun.",
    "Şu an {place.loc} sıradayım, önümde {n} kişi var. Size {goods} ya da {item} alayım mı?",
    "Doğum günün kutlu olsun! Saat {time} gibi {goods} ile geliyoruz. Çocuklar {item} boyadı.",
    "Doktor ninemi {day} günü saat {time} gibi görecek. {n} numaralı otobüse bin, {item} unutma.",
]
PAY = ["sen {it} için {n} lira ödersin, saat {time}", "sen {it} karşılığı {n} lira yollarsın, saat {time}"]
GET = ["sen {it} teslim alırsın, {n} tane, saat {time}", "sen {it} eline alırsın, {n} tane, saat {time}"]
ORDER = [
    "Planımız {goods} için şöyle: önce {first}; sonra {second}.",
    "Konu {goods}, gün {day}: ilk olarak {first}; ardından {second}.",
    "Sayın alıcı, {goods} işi şöyle yürür: birinci adım, {first}; ikinci adım, {second}.",
]

READING: list[tuple[str, str, list[str]]] = [
    (
        "name",
        "Bu metin kimi anlatıyor?",
        [
            "Hava {weather}, günlerden {day}. {q} {goods} aldı.",
            "Saat {time} gibi {q} {item} buldu.",
            "Dün {q} {goods} ve {item} taşıdı.",
        ],
    ),
    (
        "name",
        "Metindeki kişinin adını yaz.",
        [
            "Bir {day} günü {item} kayboldu, saat {time} gibi {q} buldu.",
            "Dün {q} {goods} için {n} lira ödedi.",
        ],
    ),
    (
        "day",
        "Metinde hangi gün geçiyor?",
        ["Bir {day} günü {q} {goods} ile geldi.", "Saat {time} gibi, bir {day} günü, {q} {item} sattı."],
    ),
    (
        "place",
        "Metinde hangi yer geçiyor?",
        [
            "O gün {place} kapalıydı, {q} {n} dakika bekledi.",
            "Saat {time} gibi {place} açıldı ve {q} {goods} aldı.",
        ],
    ),
    (
        "city",
        "Metinde hangi şehir geçiyor?",
        [
            "Bir {day} günü {q} {goods} alıp yola çıktı, yolun sonu {city}.",
            "Saat {time} otobüsünün durağı {city}, {q} yanına {item} aldı.",
        ],
    ),
]
