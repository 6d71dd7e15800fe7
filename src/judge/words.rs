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

/// Folds the ASCII at the start of a text; gives how much of it.
///
/// Why apart: nearly all of nearly every text is ASCII, and needs no table. Words of a line that are
/// one space apart are taken together.
fn fold_ascii(out: &mut Vec<u8>, text: &[u8], bytes_max: usize) -> usize {
    let free = bytes_max.saturating_sub(out.len());
    // Why bounded first: what is asked for many times must not be looked through each time.
    let text = text.get(..free).unwrap_or(text);
    let ascii = text.get(..ascii_length(text)).unwrap_or_default();
    let before = out.len();
    let mut rest = ascii;
    while !rest.is_empty() {
        let line = memchr::memchr3(b'\n', b'\r', b'\t', rest).unwrap_or(rest.len());
        let (line, behind) = rest.split_at_checked(line).unwrap_or((rest, b""));
        push_line(out, line);
        rest = match behind.split_first() {
            Some((_, behind)) => {
                push_space(out);
                behind
            }
            None => behind,
        };
    }
    out.get_mut(before..).unwrap_or_default().make_ascii_lowercase();
    ascii.len()
}

/// How much of a text is ASCII, from its start.
fn ascii_length(text: &[u8]) -> usize {
    if text.is_ascii() {
        return text.len();
    }
    let (steps, _) = text.as_chunks::<8>();
    let plain = 8 * steps.iter().take_while(|step| step.is_ascii()).count();
    let rest = text.get(plain..).unwrap_or_default();
    plain + rest.iter().take_while(|byte| byte.is_ascii()).count()
}

/// Adds ASCII without line ends and tabs.
fn push_line(out: &mut Vec<u8>, line: &[u8]) {
    // Why no early end: so it takes many bytes at once.
    let next = line.iter().skip(1);
    let is_odd = line.iter().zip(next).fold(false, |odd, (byte, next)| {
        odd | ((*byte == b' ') & (*next == b' ')) | is_rare_space(*byte)
    });
    let begins_apart = line.starts_with(b" ") && ends_in_space(out);
    if !is_odd && !begins_apart && !line.last().is_some_and(|last| is_rare_space(*last)) {
        return out.extend_from_slice(line);
    }
    for byte in line {
        match *byte == b' ' || is_rare_space(*byte) {
            true => push_space(out),
            false => out.push(*byte),
        }
    }
}

/// White space that stands in no mail, but for a page break.
fn is_rare_space(byte: u8) -> bool {
    matches!(byte, b'\x0b' | b'\x0c')
}

/// Whether white space would be left out behind this.
fn ends_in_space(out: &[u8]) -> bool {
    matches!(out.last(), None | Some(b' '))
}

fn push_space(out: &mut Vec<u8>) {
    if !ends_in_space(out) {
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
/// Why not a search for each: there are hundreds, and most texts hold none. Four bytes at every other
/// place of the text say at once that no phrase begins there or one byte before. Why not farther on
/// where they allow it: each step would wait for what the last one found, which takes longer.
#[derive(Debug)]
pub struct Finder {
    /// Bytes that are looked at, at one place: four, where no phrase is shorter.
    seen: usize,
    /// From place to place.
    stride: usize,
    /// What may stand at a place.
    inner: Bits,
    /// The phrases: first the short ones, which are the beginnings of longer ones at most.
    groups: [Group; 2],
}

/// Phrases that are told by as many bytes at their start.
#[derive(Debug, Default)]
struct Group {
    /// How many.
    start_bytes: usize,
    /// Which they may be.
    starts: Bits,
    /// The phrases in their order: their start, themselves, and the list that each is of.
    phrases: Vec<(u64, &'static str, usize)>,
}

/// Bytes at one place.
const SEEN_MAX: usize = 4;

/// Bytes at the start of a phrase that tell whether it may be there: of a short one, of a long one.
const START_BYTES: [usize; 2] = [5, 8];

/// Bytes of the shortest phrase that a finder finds.
const PHRASE_BYTES_MIN: usize = 3;

impl Finder {
    /// A finder of these phrases, of at least three bytes each.
    pub fn new(phrases: &[Phrases]) -> Finder {
        Finder::of_lists(&[phrases])
    }

    /// A finder of the phrases of several lists.
    pub fn of_lists(lists: &[&[Phrases]]) -> Finder {
        let of_list = |(list, phrases): (usize, &&[Phrases])| {
            let phrases = phrases.iter().flat_map(|(_, phrases)| phrases.iter().copied());
            let told = phrases.filter(|phrase| phrase.len() >= PHRASE_BYTES_MIN);
            told.map(|phrase| (phrase, list)).collect::<Vec<_>>()
        };
        let phrases: Vec<_> = lists.iter().enumerate().flat_map(of_list).collect();
        let [short, long] = START_BYTES;
        let shortest = phrases.iter().map(|(phrase, _)| phrase.len()).min().unwrap_or(short);
        let seen = shortest.min(SEEN_MAX);
        let stride = shortest.min(short) - seen + 1;
        let mut inner = Bits::default();
        for (phrase, _) in &phrases {
            let places = phrase.as_bytes().windows(seen).take(stride);
            places.filter_map(|place| start(place, seen)).for_each(|place| inner.set(place));
        }
        let (long_ones, short_ones) = phrases.iter().partition(|(phrase, _)| phrase.len() >= long);
        let groups = [Group::new(short_ones, shortest.min(short)), Group::new(long_ones, long)];
        Finder { seen, stride, inner, groups }
    }

    /// The first phrase of the folded text.
    pub fn find(&self, text: &str) -> Option<&'static str> {
        let mut found = None;
        self.search(text, |phrase, _| {
            found = Some(phrase);
            false
        });
        found
    }

    /// The first phrase of each list in the folded text.
    pub fn find_each<const LISTS: usize>(&self, text: &str) -> [Option<&'static str>; LISTS] {
        let mut found = [None; LISTS];
        self.search(text, |phrase, list| {
            if let Some(first) = found.get_mut(list) {
                *first = first.or(Some(phrase));
            }
            true
        });
        found
    }

    /// Gives each phrase of the folded text with its list, in order, while `goes_on` says so.
    fn search(&self, text: &str, mut goes_on: impl FnMut(&'static str, usize) -> bool) {
        let bytes = text.as_bytes();
        let mut begins_at = |start: usize| {
            let here = bytes.get(start..).unwrap_or_default();
            let mut groups = self.groups.iter().filter(|group| group.may_begin(here));
            groups.all(|group| group.at(here).all(|(_, phrase, list)| goes_on(phrase, *list)))
        };
        for (place, four) in bytes.windows(SEEN_MAX).enumerate().step_by(self.stride) {
            let [one, two, three, last] = *four else { return };
            let seen = u32::from_be_bytes([one, two, three, last]) >> (8 * (SEEN_MAX - self.seen));
            if !self.inner.has(seen.into()) {
                continue;
            }
            let before = place.checked_sub(1).filter(|_| self.stride > 1);
            if !(before.is_none_or(&mut begins_at) && begins_at(place)) {
                return;
            }
        }
        // What is shorter than four bytes may stand at the end.
        if self.seen < SEEN_MAX {
            begins_at(bytes.len().saturating_sub(self.seen));
        }
    }
}

impl Group {
    fn new(told: Vec<&(&'static str, usize)>, start_bytes: usize) -> Group {
        let with_start = |(phrase, list): &(&'static str, usize)| {
            (start(phrase.as_bytes(), start_bytes), *phrase, *list)
        };
        let told = told.into_iter().map(with_start);
        let told = told.filter_map(|(start, phrase, list)| Some((start?, phrase, list)));
        let mut group = Group { start_bytes, starts: Bits::default(), phrases: told.collect() };
        group.phrases.sort_unstable();
        group.phrases.iter().for_each(|(start, _, _)| group.starts.set(*start));
        group
    }

    /// Whether one of the phrases may begin the bytes.
    fn may_begin(&self, bytes: &[u8]) -> bool {
        start(bytes, self.start_bytes).is_some_and(|start| self.starts.has(start))
    }

    /// The phrases that the bytes begin with.
    fn at(&self, bytes: &[u8]) -> impl Iterator<Item = &(u64, &'static str, usize)> {
        let start = start(bytes, self.start_bytes);
        let first = self.phrases.partition_point(|(known, _, _)| Some(*known) < start);
        let here = self.phrases.get(first..).unwrap_or_default().iter();
        here.take_while(move |(known, _, _)| Some(*known) == start)
            .filter(move |(_, phrase, _)| bytes.starts_with(phrase.as_bytes()))
    }
}

/// The first bytes, at most eight, as one number that is ordered as they are; `None` when there are
/// fewer.
fn start(bytes: &[u8], count: usize) -> Option<u64> {
    if let Some(first) = bytes.first_chunk::<8>() {
        return Some(u64::from_be_bytes(*first) >> (64 - 8 * count.clamp(1, 8)));
    }
    let first = bytes.get(..count)?;
    Some(first.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// A set of numbers that may hold more than was put in.
#[derive(Debug)]
struct Bits(Box<[u64; 1 << HASH_BITS >> 6]>);

/// Bits of the hash of a number.
const HASH_BITS: usize = 15;

impl Bits {
    fn set(&mut self, number: u64) {
        let (word, bit) = Bits::bit(number);
        self.0.get_mut(word).into_iter().for_each(|word| *word |= bit);
    }

    fn has(&self, number: u64) -> bool {
        let (word, bit) = Bits::bit(number);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Which word and which bit in it stand for a number.
    fn bit(number: u64) -> (usize, u64) {
        let [.., low, high] = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        let hash = usize::from(u16::from_le_bytes([low, high])) >> (16 - HASH_BITS);
        (hash >> 6, 1 << (hash & 63))
    }
}

impl Default for Bits {
    fn default() -> Bits {
        Bits(Box::new([0; 1 << HASH_BITS >> 6]))
    }
}

/// The first phrase that the folded subject begins with, when a colon follows it: software puts
/// `Automatic reply:` before the subject that it answers.
pub fn labelled(list: &[Phrases], subject: &str) -> Option<&'static str> {
    subject.contains(':').then_some(())?;
    let phrases = list.iter().flat_map(|(_, phrases)| phrases.iter());
    phrases.copied().find(|phrase| {
        let rest = subject.strip_prefix(phrase).unwrap_or_default();
        rest.trim_start().starts_with(':')
    })
}

/// Subjects and texts that ask a sender to prove to be human before a message is delivered.
pub const CHALLENGE_PHRASES: &[Phrases] = &[
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

    const PROBES: &[&[Phrases]] = &[
        &[("x", &["abc", "bcde", "abcd", "zus"])],
        &[("x", &["abcd", "cabca"]), ("y", &["stell"])],
        &[("x", &["paket", "unzustellbar", "unzust"])],
        &[("x", &["non remis", "bunzu", "paketa"])],
        &[("x", &["stellbar", "é abc"])],
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

        /// Goal: one pass over a text finds of each list what a search for each phrase finds.
        /// Method: lists whose shortest phrases have three, four, five and more bytes; texts of
        /// pieces of them.
        #[test]
        fn the_first_phrase_of_each_list_is_found(
            text in "(abc|bcd|abcd|cabc|de|paket|bu|zu|stellbar|unzu|non |remis|ab|e| |é){0,14}",
            lists in prop::sample::subsequence(PROBES, 1..5),
        ) {
            let found: [Option<&str>; 5] = Finder::of_lists(&lists).find_each(&text);
            for (list, found) in lists.iter().zip(found) {
                let phrases = list.iter().flat_map(|(_, phrases)| phrases.iter().copied());
                let places = phrases.filter_map(|phrase| Some((text.find(phrase)?, phrase)));
                prop_assert_eq!(found, places.min().map(|(_, phrase)| phrase));
                prop_assert_eq!(Finder::new(list).find(&text), found);
            }
        }

        /// Goal: text is folded alike wherever its ASCII begins and ends. Method: the same,
        /// character by character.
        #[test]
        fn folding_is_what_it_is_for_each_character(
            text in "([a-zA-Z .:\\t\r\n\u{b}\u{c}]{0,300}|[äÖß‘\u{a0}\u{2028}中İ]{0,3}){0,6}",
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
