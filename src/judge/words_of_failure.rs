//! What bounces say in their subjects and texts, by language; see `words`.

use std::sync::LazyLock;

use crate::judge::words::{CHALLENGE_PHRASES, Finder, Phrases};

/// Subjects of bounces.
pub const SUBJECT_PHRASES: &[Phrases] = &[
    (
        "en",
        &[
            "undeliver",
            "delivery status notification",
            "mail delivery failed",
            "mail delivery failure",
            "mail delivery status",
            "delivery failure",
            "delivery failed",
            "delivery has failed",
            "delivery notification",
            "delivery report",
            "failure notice",
            "returned mail",
            "returned to sender",
            "mail system error",
            "non-delivery",
            "nondelivery",
            "not delivered",
            "could not be delivered",
            "cannot be delivered",
            "unable to deliver",
            "could not send",
            "mail failure",
            "mail failed",
            "message failure",
            "failed mail",
            "failed delivery",
            "addressing error",
            "error sending your mail",
            "no valid recipient",
            "postmaster notify",
            "postmaster copy",
            "considered unsolicited bulk email",
            "message you sent blocked",
            "rejected mail",
            "message rejected",
            "virus in mail from you",
            "banned contents from you",
        ],
    ),
    (
        "de",
        &[
            "unzustellbar",
            "nicht zustellbar",
            "nicht zugestellt",
            "zustellung fehlgeschlagen",
            "zustellungsfehler",
            "zustellfehler",
            "fehler bei der zustellung",
            "zustellbericht",
        ],
    ),
    (
        "fr",
        &[
            "non remis",
            "non distribu",
            "non delivre",
            "echec de la remise",
            "echec de remise",
            "echec de distribution",
            "echec de la distribution",
            "echec d'envoi",
            "impossible de remettre",
            "revenu en erreur",
            "notification d'etat",
            "retour a l'expediteur",
            "erreur de distribution",
        ],
    ),
    (
        "es",
        &[
            "no se puede entregar",
            "no entregado",
            "no entregable",
            "correo devuelto",
            "mensaje devuelto",
            "error de entrega",
            "error en la entrega",
            "fallo de entrega",
            "fallo en la entrega",
            "entrega fallida",
            "estado de entrega",
        ],
    ),
    (
        "pt",
        &[
            "nao entregue",
            "nao e possivel entregar",
            "nao foi possivel entregar",
            "falha na entrega",
            "erro na entrega",
            "mensagem devolvida",
            "status de entrega",
        ],
    ),
    (
        "it",
        &[
            "non recapitabile",
            "mancata consegna",
            "mancato recapito",
            "non consegnato",
            "impossibile recapitare",
            "recapito non riuscito",
            "errore di consegna",
            "stato del recapito",
            "consegna fallita",
        ],
    ),
    (
        "nl",
        &[
            "onbestelbaar",
            "niet bezorgd",
            "niet afgeleverd",
            "kan niet worden bezorgd",
            "aflevering mislukt",
            "bezorging mislukt",
        ],
    ),
    (
        "pl",
        &[
            "niedostarczon",
            "nie mozna dostarczyc",
            "nie dostarczono",
            "blad dostarczenia",
            "blad doreczenia",
            "zwrot wiadomosci",
            "zwrot poczty",
        ],
    ),
    ("cs", &["nedorucitel", "nedoruceno", "nedorucena", "nelze dorucit", "nebyla dorucena"]),
    (
        "ru",
        &[
            "недоставлен",
            "не доставлено",
            "не удается доставить",
            "не удалось доставить",
            "невозможно доставить",
            "ошибка доставки",
            "уведомление о недоставке",
            "отчет о доставке",
        ],
    ),
    ("uk", &["не вдалося доставити", "недоставлене"]),
    (
        "sv",
        &[
            "kan inte lever",
            "kunde inte lever",
            "gick inte att leverera",
            "olevererbar",
            "leveransfel",
        ],
    ),
    ("da", &["kan ikke lever", "kunne ikke lever", "ikke leveret", "leveringsfejl"]),
    ("no", &["ikke levert", "leveringsfeil", "mislykket levering"]),
    (
        "fi",
        &[
            "ei voi toimittaa",
            "ei voitu toimittaa",
            "toimitus epaonnistui",
            "toimittaminen epaonnistui",
        ],
    ),
    ("tr", &["teslim edileme", "iletilemedi", "teslimat hatasi"]),
    ("hu", &["kezbesithetetlen", "nem kezbesitheto", "sikertelen kezbesites"]),
    ("ro", &["nelivrat", "livrare esuata"]),
    ("el", &["αποτυχια παραδοσης", "δεν παραδοθηκε"]),
    (
        "ja",
        &[
            "配信不能",
            "配信できません",
            "配信エラー",
            "送信エラー",
            "送信できません",
            "送信失敗",
            "不達",
        ],
    ),
    (
        "zh",
        &[
            "未送达",
            "无法投递",
            "无法送达",
            "投递失败",
            "发送失败",
            "退信",
            "無法傳遞",
            "無法遞送",
            "傳送失敗",
        ],
    ),
    ("ko", &["배달되지 않음", "배달 실패", "전달 실패", "전송 실패", "발송 실패", "반송"]),
    ("ar", &["تعذر التسليم", "فشل التسليم", "لم يتم تسليم"]),
    ("he", &["לא נמסר", "לא ניתן למסור"]),
];

/// Texts of bounces, above the message they return.
pub const TEXT_PHRASES: &[Phrases] = &[
    (
        "en",
        &[
            "could not be delivered",
            "couldn't be delivered",
            "cannot be delivered",
            "can't be delivered",
            "was not delivered",
            "wasn't delivered",
            "has not been delivered",
            "not able to be delivered",
            "could not deliver",
            "couldn't deliver",
            "unable to deliver",
            "able to deliver your message",
            "could not be sent",
            "failed to deliver",
            "delivery failed",
            "delivery has failed",
            "failed permanently",
            "recipients failed",
            "delivery to the following",
            "permanent error",
            "permanent failure",
            "fatal errors",
            "delivery problems",
            "delivery errors",
            "undeliverable",
            "undelivered",
            "did not reach the following",
            "transcript of session follows",
            "failure reasons",
            "user unknown",
            "unknown user",
            "no such user",
            "invalid user",
            "invalid final delivery",
            "recipient name is not recognized",
            "unknown recipient",
            "address rejected",
            "rejected your message",
            "trouble delivering",
            "error delivering your",
            "error sending your mail",
            "while trying to deliver",
            "attempting to deliver",
            "not relayed",
            "unroutable",
            "unrouteable",
            "was blocked by",
            "considered unsolicited bulk",
            "permission to post",
        ],
    ),
    (
        "de",
        &[
            "nicht zugestellt werden",
            "wurde nicht zugestellt",
            "nicht zustellbar",
            "unzustellbar",
            "zustellung ist fehlgeschlagen",
            "zustellung fehlgeschlagen",
            "fehler bei der zustellung",
            "empfanger unbekannt",
        ],
    ),
    (
        "fr",
        &[
            "pas pu etre remis",
            "n'a pu etre remis",
            "pas ete remis",
            "pas ete distribue",
            "pas pu etre distribue",
            "pas pu etre delivre",
            "pu etre envoye",
            "impossible de remettre",
            "impossible de distribuer",
            "echec de la remise",
            "echec de remise",
            "destinataire inconnu",
        ],
    ),
    (
        "es",
        &[
            "no se pudo entregar",
            "no pudo ser entregado",
            "no ha podido ser entregado",
            "no se ha podido entregar",
            "no ha sido entregado",
            "no fue entregado",
            "no se puede entregar",
            "usuario desconocido",
        ],
    ),
    (
        "pt",
        &[
            "nao pode ser entregue",
            "nao foi entregue",
            "nao foi possivel entregar",
            "falha na entrega",
            "usuario desconhecido",
        ],
    ),
    (
        "it",
        &[
            "non e stato possibile consegnare",
            "non e stato possibile recapitare",
            "non puo essere consegnato",
            "non puo essere recapitato",
            "non e stato consegnato",
            "non e stato recapitato",
            "impossibile recapitare",
            "impossibile consegnare",
            "mancata consegna",
        ],
    ),
    (
        "nl",
        &[
            "niet worden bezorgd",
            "niet worden afgeleverd",
            "niet afgeleverd",
            "niet bezorgd",
            "onbestelbaar",
        ],
    ),
    (
        "pl",
        &[
            "zostac dostarczon",
            "nie zostala dostarczona",
            "nie mozna dostarczyc",
            "nie udalo sie dostarczyc",
            "nie dostarczono",
        ],
    ),
    ("cs", &["nebyla dorucena", "nemohla byt dorucena", "nelze dorucit", "nepodarilo se dorucit"]),
    ("sk", &["nebola dorucena", "nepodarilo sa dorucit"]),
    (
        "ru",
        &[
            "не может быть доставлен",
            "не удалось доставить",
            "не было доставлено",
            "не доставлено",
            "невозможно доставить",
            "не может быть отправлено",
            "быть отправлено одному или",
            "не удается доставить",
        ],
    ),
    ("uk", &["не вдалося доставити", "не може бути доставлен"]),
    ("sv", &["kunde inte levereras", "har inte levererats", "gick inte att leverera"]),
    ("da", &["kunne ikke leveres", "blev ikke leveret"]),
    ("no", &["ble ikke levert", "kan ikke leveres"]),
    (
        "fi",
        &[
            "ei voitu toimittaa",
            "ei voida toimittaa",
            "toimitus epaonnistui",
            "toimittaminen epaonnistui",
        ],
    ),
    ("tr", &["teslim edilem", "iletilemedi", "gonderilemedi"]),
    ("hu", &["nem kezbesitheto", "kezbesitese sikertelen", "nem sikerult kezbesiteni"]),
    ("ro", &["nu a putut fi livrat", "nu a fost livrat"]),
    ("el", &["δεν ηταν δυνατη η παραδοση", "δεν παραδοθηκε"]),
    (
        "ja",
        &[
            "送信できませんでした",
            "配信できませんでした",
            "配信できません",
            "届きませんでした",
            "送信に失敗",
            "配信に失敗",
            "見つかりません",
            "リストにありません",
        ],
    ),
    (
        "zh",
        &[
            "无法送达",
            "无法投递",
            "投递失败",
            "无法发送",
            "发送失败",
            "未能送达",
            "退回",
            "無法傳遞",
            "無法遞送",
            "無法送達",
            "退信",
        ],
    ),
    (
        "ko",
        &[
            "전달되지 않았습니다",
            "배달하지 못했습니다",
            "발송에 실패",
            "배달할 수 없습니다",
            "전달할 수 없습니다",
        ],
    ),
    ("ar", &["تعذر تسليم", "لم يتم تسليم"]),
    ("he", &["לא ניתן היה למסור", "לא נמסרה"]),
    ("fa", &["تحویل داده نشد"]),
];

/// Texts that say that a mailbox is full: bounces to the sender, warnings to its owner.
pub const FULL_MAILBOX_PHRASES: &[Phrases] = &[
    (
        "en",
        &[
            "mailbox is full",
            "mailbox full",
            "mailbox exceeds",
            "mailbox has exceeded",
            "over quota",
            "quota exceeded",
        ],
    ),
    ("de", &["postfach ist voll"]),
    ("fr", &["boite aux lettres est pleine", "boite de reception est pleine"]),
    ("es", &["buzon lleno", "buzon esta lleno"]),
    ("it", &["casella piena", "casella e piena"]),
    ("ru", &["ящик переполнен"]),
];

/// What else than mail is delivered, fails to be, and is late.
pub const GOODS_PHRASES: &[Phrases] = &[
    ("en", &["parcel", "your package", "your order", "shipment", "courier", "tracking number"]),
    ("de", &["paket", "ihre sendung", "deine sendung", "ihre bestellung", "sendungsnummer"]),
    ("fr", &["colis", "votre commande", "numero de suivi"]),
    ("es", &["paquete", "su pedido", "tu pedido"]),
    ("pt", &["encomenda", "seu pedido"]),
    ("it", &["il pacco", "tuo ordine", "suo ordine", "spedizione"]),
    ("nl", &["pakket", "bestelling"]),
    ("pl", &["paczk", "przesylk", "zamowieni"]),
    ("ru", &["посылк", "заказ"]),
    ("ja", &["お荷物", "ご注文"]),
    ("zh", &["包裹", "订单", "快递"]),
];

/// Subjects and texts that say that delivery is only late.
pub const DELAY_PHRASES: &[Phrases] = &[
    (
        "en",
        &[
            "has not yet been delivered",
            "not yet been delivered",
            "been delayed",
            "delayed mail",
            "message delayed",
            "(delay)",
            "delivery delayed",
            "is delayed",
            "still being retried",
            "will be retried until",
            "delivery attempts will continue",
            "this is a warning message only",
            "this is a warning only",
            "do not need to resend",
            "enqueued and undeliverable for",
            "could not send message for past",
            "could not send mail for past",
            "transient non-fatal errors",
            "will retry for",
        ],
    ),
    ("de", &["verzogert", "noch nicht zugestellt", "weiterhin versucht"]),
    ("fr", &["remise retardee", "a ete retarde", "pas encore ete remis", "pas encore pu etre"]),
    ("es", &["retrasad", "aun no se ha entregado", "todavia no se ha entregado"]),
    ("pt", &["entrega atrasada", "ainda nao foi entregue"]),
    ("it", &["ritardat", "non e ancora stato"]),
    ("nl", &["vertraagd", "nog niet afgeleverd", "nog niet bezorgd"]),
    ("pl", &["opozni"]),
    ("cs", &["zpozden"]),
    ("ru", &["задерж", "еще не доставлено", "пока не доставлено"]),
    ("sv", &["fordroj", "forsenad"]),
    ("da", &["forsinket"]),
    ("fi", &["viivasty"]),
    ("tr", &["gecikti"]),
    ("ja", &["遅延"]),
    ("zh", &["延迟", "延遲"]),
    ("ko", &["지연"]),
];

/// Finds `SUBJECT_PHRASES`.
pub static FAILURE_SUBJECT: LazyLock<Finder> = LazyLock::new(|| Finder::new(SUBJECT_PHRASES));

/// Finds `DELAY_PHRASES`.
pub static DELAY: LazyLock<Finder> = LazyLock::new(|| Finder::new(DELAY_PHRASES));

/// What the text of a message says, as far as it is asked for: the first phrase of each list.
#[derive(Clone, Copy, Debug)]
pub struct Said {
    /// Of `TEXT_PHRASES`.
    pub failure: Option<&'static str>,
    /// Of `DELAY_PHRASES`.
    pub delay: Option<&'static str>,
    /// Of `FULL_MAILBOX_PHRASES`.
    pub full_mailbox: Option<&'static str>,
    /// Of `GOODS_PHRASES`.
    pub goods: Option<&'static str>,
    /// Of `CHALLENGE_PHRASES`.
    pub challenge: Option<&'static str>,
}

/// Finds what `Said` has, in this order.
static SAID: LazyLock<Finder> = LazyLock::new(|| {
    Finder::of_lists(&[
        TEXT_PHRASES,
        DELAY_PHRASES,
        FULL_MAILBOX_PHRASES,
        GOODS_PHRASES,
        CHALLENGE_PHRASES,
    ])
});

impl Said {
    /// What a folded text says; in one pass over it.
    pub fn of(text: &str) -> Said {
        let [failure, delay, full_mailbox, goods, challenge] = SAID.find_each(text);
        Said { failure, delay, full_mailbox, goods, challenge }
    }
}
