//! What machines write in subjects and texts, by language; and the form in which it is compared.
//!
//! Gives: `folded`, `Finder`, `labelled`, and the shorter phrase lists; the longer ones stand in
//! `words_of_failure` and `words_of_reply`.
//! Bounds: the caller's; `folded` gives at most as many bytes as it is asked for.
//!
//! Words come last: they are asked only where header and structure leave something open, and none
//! of them makes a response alone but the few subjects that only software writes. A phrase stands
//! in its folded form (a test checks it), and is real: seen in mail or in the templates of a
//! server. New ones are welcome where they are longer than a word of daily life.

use std::sync::LazyLock;

/// Phrases of one language: its ISO 639-1 code, and the phrases.
pub type Phrases = (&'static str, &'static [&'static str]);

/// Text as it is compared: lower case, no accents, plain quotes, white space as single spaces.
///
/// Why: bounces wrap their lines anywhere, and many servers write `a pu etre remis` for `été`.
pub fn folded(text: &str, bytes_max: usize) -> String {
    let mut out = Vec::with_capacity(text.len().min(bytes_max).saturating_add(CHAR_BYTES_MAX));
    let mut rest = text;
    while !rest.is_empty() && out.len() < bytes_max {
        let ascii = fold_ascii(&mut out, rest.as_bytes(), bytes_max);
        let mut foreign = rest.get(ascii..).unwrap_or_default().chars();
        if out.len() < bytes_max {
            match foreign.next() {
                Some(c) if c.is_whitespace() => push_space(&mut out),
                Some(c) => c.to_lowercase().for_each(|c| fold_into(&mut out, c)),
                None => {}
            }
        }
        rest = foreign.as_str();
    }
    String::from_utf8(out).unwrap_or_default()
}

/// Bytes that one character may become.
const CHAR_BYTES_MAX: usize = 12;

/// Bytes that `fold_ascii` folds at most.
const FOLDED_AT_ONCE: usize = 256;

/// Folds the ASCII at the start of a text; gives how much of it.
///
/// Why apart: nearly all of nearly every text is ASCII, and needs no table.
fn fold_ascii(out: &mut Vec<u8>, text: &[u8], bytes_max: usize) -> usize {
    let mut was_space = matches!(out.last(), None | Some(b' '));
    // Why no more at once: room is made for it, and the next character may be another script's.
    let text = text.get(..FOLDED_AT_ONCE).unwrap_or(text);
    let before = out.len();
    out.resize(bytes_max.min(before.saturating_add(text.len())), 0);
    let mut free = out.get_mut(before..).unwrap_or_default().iter_mut();
    let mut read = 0;
    for byte in text.iter().take_while(|byte| byte.is_ascii()) {
        let is_space = matches!(byte, b' ' | b'\t'..=b'\r');
        if !(is_space && was_space) {
            let Some(slot) = free.next() else { break };
            *slot = if is_space { b' ' } else { byte.to_ascii_lowercase() };
        }
        was_space = is_space;
        read += 1;
    }
    let unused = free.len();
    out.truncate(out.len() - unused);
    read
}

fn push_space(out: &mut Vec<u8>) {
    if !matches!(out.last(), None | Some(b' ')) {
        out.push(b' ');
    }
}

/// Adds a lower-case character without its accent.
fn fold_into(out: &mut Vec<u8>, c: char) {
    let plain = match c {
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{feff}' => "",
        '\u{300}'..='\u{36f}' => "",
        '‘' | '’' | '´' | 'ʼ' => "'",
        '“' | '”' | '„' | '«' | '»' => "\"",
        '‐'..='―' => "-",
        '：' => ":",
        'à'..='å' | 'ā' | 'ă' | 'ą' => "a",
        'æ' => "ae",
        'ç' | 'ć' | 'č' => "c",
        'ď' | 'đ' => "d",
        'è'..='ë' | 'ē' | 'ę' | 'ě' => "e",
        'ğ' => "g",
        'ì'..='ï' | 'ī' | 'ı' => "i",
        'ł' | 'ľ' | 'ĺ' => "l",
        'ñ' | 'ń' | 'ň' => "n",
        'ò'..='ö' | 'ø' | 'ő' => "o",
        'ř' => "r",
        'ß' => "ss",
        'ś' | 'š' | 'ş' | 'ș' => "s",
        'ť' | 'ț' | 'ţ' => "t",
        'ù'..='ü' | 'ū' | 'ů' | 'ű' => "u",
        'ý' | 'ÿ' => "y",
        'ź' | 'ż' | 'ž' => "z",
        'ё' => "е",
        'ά' => "α",
        'έ' => "ε",
        'ή' => "η",
        'ί' => "ι",
        'ό' => "ο",
        'ύ' => "υ",
        'ώ' => "ω",
        c => {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return;
        }
    };
    out.extend_from_slice(plain.as_bytes());
}

/// Phrases laid out for one pass over a text.
///
/// Why not a search for each: there are hundreds, and most texts hold none. The three bytes at a
/// place of the text say at once that no phrase begins there.
#[derive(Debug)]
pub struct Finder {
    /// One bit for each hash of the first three bytes of a phrase.
    starts: Box<[u64; 256]>,
    /// The phrases by their first three bytes, as one number.
    phrases: Vec<(u32, &'static str)>,
}

impl Finder {
    /// A finder of these phrases, of at least three bytes each.
    pub fn new(lists: &[Phrases]) -> Finder {
        let mut finder = Finder { starts: Box::new([0; 256]), phrases: Vec::new() };
        for phrase in lists.iter().flat_map(|(_, phrases)| phrases.iter().copied()) {
            let Some(first) = phrase.as_bytes().first_chunk::<3>() else { continue };
            let start = first.iter().fold(0, |start, byte| start << 8 | u32::from(*byte));
            let (word, bit) = start_bit(start);
            if let Some(word) = finder.starts.get_mut(usize::from(word)) {
                *word |= bit;
            }
            finder.phrases.push((start, phrase));
        }
        finder.phrases.sort_unstable();
        finder
    }

    /// The first phrase of the folded text.
    pub fn find(&self, text: &str) -> Option<&'static str> {
        let bytes = text.as_bytes();
        let mut start = 0u32;
        // Why it cannot match too early: no phrase begins with a zero byte.
        bytes.iter().enumerate().find_map(|(last, byte)| {
            start = (start << 8 | u32::from(*byte)) & 0xff_ffff;
            let (word, bit) = start_bit(start);
            match self.starts.get(usize::from(word)) {
                Some(word) if word & bit != 0 => self.at(bytes.get(last.checked_sub(2)?..)?, start),
                _ => None,
            }
        })
    }

    /// The first phrase that the bytes begin with, whose first three are `start`.
    fn at(&self, bytes: &[u8], start: u32) -> Option<&'static str> {
        let first = self.phrases.partition_point(|(known, _)| *known < start);
        let here = self.phrases.get(first..).unwrap_or_default().iter();
        let mut here = here.take_while(|(known, _)| *known == start).map(|(_, phrase)| *phrase);
        here.find(|phrase| bytes.starts_with(phrase.as_bytes()))
    }
}

/// Which word and which bit in it stand for the first three bytes of a phrase.
fn start_bit(start: u32) -> (u8, u64) {
    let hash = start.wrapping_mul(0x9e37_79b1);
    let [word, bit, ..] = hash.to_be_bytes();
    (word, 1 << (bit % 64))
}

/// The first phrase that the folded subject begins with, when a colon follows it: software puts
/// `Automatic reply:` before the subject that it answers.
pub fn labelled(list: &[Phrases], subject: &str) -> Option<&'static str> {
    let phrases = list.iter().flat_map(|(_, phrases)| phrases.iter());
    phrases.copied().find(|phrase| {
        let rest = subject.strip_prefix(phrase).unwrap_or_default();
        rest.trim_start().starts_with(':')
    })
}

/// Subjects and texts that ask a sender to prove to be human before a message is delivered.
const CHALLENGE_PHRASES: &[Phrases] = &[
    (
        "en",
        &[
            "verify that you are a real",
            "real live human",
            "that you are human",
            "you are a human",
            "you are human",
            "requires that you verify",
            "your email requires verification",
            "your e-mail requires verification",
            "please verify your message",
            "please confirm your message",
            "confirm your message to",
            "confirm that you sent",
            "unverified email to",
            "sender verification",
            "sender address verification",
            "list of approved senders",
            "approved senders list",
            "approved sender list",
            "allowed senders list",
            "to have your message delivered",
            "message will be delivered as soon as you",
            "held until you",
            "held pending your confirmation",
            "waiting for your confirmation before",
        ],
    ),
    (
        "de",
        &[
            "bestatigen sie, dass sie kein",
            "bestatigen sie bitte ihre nachricht",
            "damit ihre nachricht zugestellt wird",
        ],
    ),
    (
        "fr",
        &[
            "vous authentifier afin",
            "valider votre message",
            "que vous n'etes pas un robot",
            "attente d'authentification",
            "attente de validation",
        ],
    ),
    ("es", &["confirme que es una persona", "confirmar que usted no es"]),
    ("pt", &["confirme que voce e", "antispam uol", "confirmacao do remetente"]),
    ("it", &["confermare di essere", "conferma di non essere"]),
    ("nl", &["bevestig dat u geen"]),
    ("ja", &["送信者認証", "本人確認のため"]),
];

/// What Exchange and Outlook put before the subject of a message that was read, or deleted unread.
pub const RECEIPT_LABEL: &[Phrases] = &[
    ("en", &["read", "not read", "read receipt", "return receipt"]),
    ("de", &["gelesen", "ungelesen", "nicht gelesen", "lesebestatigung"]),
    ("fr", &["lu", "non lu", "accuse de lecture"]),
    ("es", &["leido", "no leido"]),
    ("pt", &["lida", "lido", "nao lida"]),
    ("it", &["letto", "letta", "non letto"]),
    ("nl", &["gelezen", "niet gelezen", "leesbevestiging"]),
    ("pl", &["przeczytano", "przeczytane", "potwierdzenie przeczytania"]),
    ("cs", &["precteno", "prectene"]),
    ("ru", &["прочитано", "прочтено"]),
    ("sv", &["last", "olast"]),
    ("da", &["laest"]),
    ("no", &["lest"]),
    ("fi", &["luettu"]),
    ("tr", &["okundu"]),
    ("hu", &["elolvasva"]),
    ("ja", &["開封済み", "開封済"]),
    ("zh", &["已读", "已讀"]),
    ("ko", &["읽음"]),
];

/// Lines above a message that a text quotes.
const SEPARATOR_PHRASES: &[Phrases] = &[
    (
        "en",
        &[
            "original message",
            "copy of the message",
            "copy of your message",
            "copy of the first part",
            "line is a copy",
            "message follows",
            "message headers follow",
            "message header follows",
            "message text follows",
            "headers of the message",
            "headers of your message",
            "header of the message",
            "message header",
            "original mail",
            "returned message",
            "returned mail",
            "old message",
            "your message reads",
            "following is the message",
        ],
    ),
    ("de", &["nachricht", "originalmail"]),
    ("fr", &["message d'origine", "message initial", "copie du message", "en-tetes du message"]),
    ("es", &["mensaje"]),
    ("pt", &["mensagem"]),
    ("it", &["messaggio"]),
    ("nl", &["bericht"]),
    ("pl", &["wiadomosc"]),
    ("cs", &["zprav"]),
    ("ru", &["сообщени", "письм"]),
    ("sv", &["meddelande"]),
    ("da", &["meddelelse"]),
    ("no", &["melding"]),
    ("fi", &["viesti"]),
    ("tr", &["ileti", "mesaj"]),
    ("ja", &["メッセージ", "メール"]),
    ("zh", &["邮件", "郵件"]),
    ("ko", &["메시지", "메일"]),
];

/// Finds `CHALLENGE_PHRASES`.
pub static CHALLENGE: LazyLock<Finder> = LazyLock::new(|| Finder::new(CHALLENGE_PHRASES));

/// Finds `SEPARATOR_PHRASES`.
pub static SEPARATOR: LazyLock<Finder> = LazyLock::new(|| Finder::new(SEPARATOR_PHRASES));

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::judge::words_of_failure::{
        DELAY_PHRASES, FULL_MAILBOX_PHRASES, GOODS_PHRASES, SUBJECT_PHRASES, TEXT_PHRASES,
    };
    use crate::judge::words_of_reply::{REPLY_LABEL, REPLY_PHRASES};

    const LISTS: &[(&str, &[Phrases])] = &[
        ("SUBJECT_PHRASES", SUBJECT_PHRASES),
        ("TEXT_PHRASES", TEXT_PHRASES),
        ("DELAY_PHRASES", DELAY_PHRASES),
        ("FULL_MAILBOX_PHRASES", FULL_MAILBOX_PHRASES),
        ("GOODS_PHRASES", GOODS_PHRASES),
        ("REPLY_LABEL", REPLY_LABEL),
        ("REPLY_PHRASES", REPLY_PHRASES),
        ("CHALLENGE_PHRASES", CHALLENGE_PHRASES),
        ("RECEIPT_LABEL", RECEIPT_LABEL),
        ("SEPARATOR_PHRASES", SEPARATOR_PHRASES),
    ];

    #[test]
    fn phrases_stand_in_their_folded_form() {
        for (list, phrases) in LISTS {
            for phrase in phrases.iter().flat_map(|(_, phrases)| phrases.iter()) {
                assert_eq!(&folded(phrase, 1000), phrase, "{list}");
            }
        }
    }

    #[test]
    fn text_is_compared_without_case_accents_and_line_breaks() {
        assert_eq!(folded("N’a  pas\r\n pu ÊTRE\u{a0}remis", 100), "n'a pas pu etre remis");
        assert_eq!(folded("Größe ŁÓDŹ İzmir ё", 100), "grosse lodz izmir е");
        assert_eq!(folded("Re：\u{200b}送信", 100), "re:送信");
        assert!(folded(&"ä".repeat(1000), 10).len() <= 12);
    }

    #[test]
    fn a_label_needs_its_colon() {
        assert_eq!(labelled(REPLY_LABEL, "automatic reply: hello"), Some("automatic reply"));
        assert_eq!(labelled(REPLY_LABEL, "autorespons :nyaan?"), Some("autorespons"));
        assert_eq!(labelled(REPLY_LABEL, "automatic reply does not work"), None);
        assert_eq!(labelled(REPLY_LABEL, "re: automatic reply: hello"), None);
        assert_eq!(labelled(RECEIPT_LABEL, "readme: hello"), None);
    }

    #[test]
    fn a_finder_finds_every_phrase_and_nothing_else() {
        for (name, list) in LISTS {
            let finder = Finder::new(list);
            for phrase in list.iter().flat_map(|(_, phrases)| phrases.iter()) {
                if phrase.len() < 3 {
                    continue;
                }
                let text = format!("x {phrase} y");
                let found = finder.find(&text).unwrap_or_else(|| panic!("{name}: {phrase}"));
                assert!(text.contains(found), "{name}: {phrase}");
                let cut: String = phrase.chars().skip(1).collect();
                assert_ne!(finder.find(&cut), Some(*phrase), "{name}: {phrase}");
            }
            assert_eq!(finder.find("the quick brown fox"), None, "{name}");
            assert_eq!(finder.find(""), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_finder_is_a_search_for_each_phrase(text in "(undeli|ver|user unk|nown|unzu|stellbar| |x){0,12}") {
            let phrases = TEXT_PHRASES.iter().flat_map(|(_, phrases)| phrases.iter());
            let any = phrases.clone().any(|phrase| text.contains(phrase));
            prop_assert_eq!(Finder::new(TEXT_PHRASES).find(&text).is_some(), any);
        }

        /// Goal: text is folded alike wherever its ASCII begins and ends. Method: the same,
        /// character by character.
        #[test]
        fn folding_is_what_it_is_for_each_character(
            text in "([a-zA-Z .:\\t\r\n]{0,300}|[äÖß‘\u{a0}\u{2028}中İ]{0,3}){0,6}",
            bytes_max in 0usize..700,
        ) {
            let mut wanted = Vec::new();
            for c in text.chars() {
                if wanted.len() >= bytes_max {
                    break;
                }
                match c.is_whitespace() {
                    true => push_space(&mut wanted),
                    false => c.to_lowercase().for_each(|c| fold_into(&mut wanted, c)),
                }
            }
            prop_assert_eq!(folded(&text, bytes_max).into_bytes(), wanted);
        }

        #[test]
        fn folding_is_stable(text in "\\PC{0,60}") {
            let once = folded(&text, 1000);
            prop_assert_eq!(folded(&once, 1000), once);
        }
    }
}
