//! One Received line: who gave the message to whom, as the receiving host wrote it.
//!
//! Takes: the value of a Received field, unfolded. Gives: `Received`, in the forms of Postfix,
//! Exim, Sendmail, Exchange, Dovecot's LMTP, qmail and their like. Errors: none; what is not said
//! is `None`. Bounds: `limits::RECEIVED_BYTES_MAX`, `limits::RECEIVED_WORDS_MAX`.
//! Standards: RFC 5321 §4.4, RFC 3848 (`with` keywords), RFC 5322 §3.2.2 (comments).
//!
//! The line's writer is believed or not by `judge::border`; here only this matters: what the
//! *client* chose (its HELO name) must never be read as what the *writer* saw (its address).

use std::net::IpAddr;

use crate::mail::address::ReversePath;
use crate::mail::header::{reverse_path, unquoted};
use crate::mail::limits::{
    ADDRESS_BYTES_MAX, COMMENT_DEPTH_MAX, RECEIVED_BYTES_MAX, RECEIVED_WORDS_MAX,
};
use crate::mail::time::Timestamp;

/// One Received line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Where the message came from.
    pub from: From,
    /// The host that wrote the line; `None` when it does not say (qmail's own lines).
    pub by: Option<String>,
    /// The protocol, as written: `ESMTPS`, `LMTP`, `local`, …
    pub with: Option<String>,
    /// The queue id at the host that wrote the line, without angle brackets.
    pub id: Option<String>,
    /// The recipient it names, as text.
    pub recipient: Option<String>,
    /// The reverse-path it names.
    pub envelope_from: Option<ReversePath>,
    /// When the host got the message.
    pub date: Option<Timestamp>,
}

/// Where a host says that it got a message from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum From {
    /// A client with its address.
    Client(Client),
    /// A client whose address is not said.
    Unsaid {
        /// The name it is given, which may be its own choice; empty when there is none.
        name: String,
    },
    /// No other host: a program on this host made or handed in the message.
    #[default]
    Local,
}

/// A client, as the host saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address.
    pub ip: IpAddr,
    /// What it called itself; empty when not said.
    pub helo: String,
    /// What DNS calls its address, as the host looked it up; `None` when not said, or when the host
    /// says that it may be forged.
    pub rdns: Option<String>,
    /// Other addresses that the line shows where a host writes what it saw: one of them may be the
    /// client's own word. At most `ADDRESSES_MAX`.
    pub others: Vec<IpAddr>,
}

impl Received {
    /// Reads the unfolded value of a Received field.
    pub fn parse(value: &str) -> Received {
        let (trace, date) = split_date(value);
        let words = words(trace);
        let mut line = Received { date, from: From::Local, ..Received::default() };
        let mut rest = words.as_slice();
        let mut origin: Option<&[Word<'_>]> = None;
        while let Some((word, after)) = rest.split_first() {
            rest = match word.keyword() {
                Some(Keyword::From) if origin.is_none() && line.by.is_none() => {
                    let clause = from_clause(after);
                    origin = Some(clause);
                    after.get(clause.len()..).unwrap_or_default()
                }
                Some(Keyword::By) => value_into(&mut line.by, after),
                Some(Keyword::With) => value_into(&mut line.with, after),
                Some(Keyword::Id) => value_into(&mut line.id, after),
                Some(Keyword::For) => value_into(&mut line.recipient, after),
                Some(Keyword::EnvelopeFrom) => {
                    line.envelope_from = line.envelope_from.or_else(|| path_of(after.first()));
                    after
                }
                Some(Keyword::From) | None => {
                    line.envelope_from = line.envelope_from.or_else(|| word.envelope_from());
                    after
                }
            };
        }
        line.from = origin.map_or(From::Local, |clause| origin_of(clause));
        if line.is_handed_in() {
            line.from = From::Local;
        }
        line
    }

    /// The client, when the host gives its address.
    pub fn client(&self) -> Option<&Client> {
        match &self.from {
            From::Client(client) => Some(client),
            From::Unsaid { .. } | From::Local => None,
        }
    }

    /// Whether the client proved to be a user of the host: RFC 3848 puts an `A` for AUTH behind
    /// the protocol; and a webmail, which writes HTTP, has nobody but its users.
    pub fn is_authenticated(&self) -> bool {
        let with = self.with.as_deref().unwrap_or_default();
        AUTHENTICATED.iter().any(|word| with.eq_ignore_ascii_case(word))
    }

    /// Whether it came over LMTP.
    pub fn is_lmtp(&self) -> bool {
        let with = self.with.as_deref().unwrap_or_default();
        with.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("lmtp"))
    }

    /// Whether a program fetched it out of a mailbox elsewhere: fetchmail and getmail write `POP3`,
    /// `IMAP` and their like.
    pub fn is_fetched(&self) -> bool {
        let with = self.with.as_deref().unwrap_or_default();
        with.get(..4).is_some_and(|start| {
            start.eq_ignore_ascii_case("pop3") || start.eq_ignore_ascii_case("imap")
        })
    }

    /// Whether this is a line of qmail's own (`(qmail 123 invoked by uid 5)`), which names no
    /// host: qmail-smtpd wrote the line below it.
    pub fn is_qmail_step(&self) -> bool {
        self.by.is_none() && self.from == From::Local && self.id.is_none() && self.with.is_none()
    }

    /// Exim writes `from user by host with local`: a user of the host, no client.
    fn is_handed_in(&self) -> bool {
        let with = self.with.as_deref().unwrap_or_default();
        ["local", "local-esmtp", "local-smtp"].iter().any(|word| with.eq_ignore_ascii_case(word))
            && self.client().is_none()
    }
}

/// Protocols in which a user authenticated (RFC 3848 §1, RFC 6531 §4.3), and webmail.
const AUTHENTICATED: &[&str] = &[
    "ESMTPA",
    "ESMTPSA",
    "LMTPA",
    "LMTPSA",
    "UTF8SMTPA",
    "UTF8SMTPSA",
    "UTF8LMTPA",
    "UTF8LMTPSA",
    "HTTP",
    "HTTPS",
];

/// A word, or a comment with its inner text.
#[derive(Clone, Copy, Debug)]
enum Word<'a> {
    Atom(&'a str),
    Comment(&'a str),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keyword {
    From,
    By,
    With,
    Id,
    For,
    EnvelopeFrom,
}

impl<'a> Word<'a> {
    fn keyword(self) -> Option<Keyword> {
        let Word::Atom(atom) = self else { return None };
        let keywords = [
            ("from", Keyword::From),
            ("by", Keyword::By),
            ("with", Keyword::With),
            ("id", Keyword::Id),
            ("id#", Keyword::Id),
            ("for", Keyword::For),
            ("envelope-from", Keyword::EnvelopeFrom),
        ];
        let found = keywords.iter().find(|(name, _)| atom.eq_ignore_ascii_case(name));
        found.map(|(_, keyword)| *keyword)
    }

    fn text(self) -> &'a str {
        match self {
            Word::Atom(text) | Word::Comment(text) => text,
        }
    }

    /// Exim and others write `(envelope-from <joe@a.example>)`.
    fn envelope_from(self) -> Option<ReversePath> {
        let Word::Comment(text) = self else { return None };
        let (name, path) = text.trim().split_once(char::is_whitespace)?;
        let is_path =
            ["envelope-from", "envelope-sender"].iter().any(|n| name.eq_ignore_ascii_case(n));
        is_path.then(|| reverse_path(path)).flatten()
    }
}

fn path_of(word: Option<&Word<'_>>) -> Option<ReversePath> {
    word.and_then(|word| reverse_path(word.text()))
}

/// Takes the next atom as the value of a keyword, once; the first one said counts.
fn value_into<'a, 'w>(slot: &mut Option<String>, after: &'w [Word<'a>]) -> &'w [Word<'a>] {
    match after.split_first() {
        Some((Word::Atom(atom), rest)) => {
            let value = atom.trim_matches(|c| matches!(c, '<' | '>' | ',' | ';'));
            if slot.is_none() && !value.is_empty() {
                *slot = Some(value.trim_end_matches('.').to_owned());
            }
            rest
        }
        _ => after,
    }
}

/// The words that belong to `from`: up to `by`.
///
/// Why: the word behind `from` is the client's to choose, so it is no keyword, whatever it is.
fn from_clause<'w, 'a>(after: &'w [Word<'a>]) -> &'w [Word<'a>] {
    let end = after.iter().skip(1).position(|word| word.keyword() == Some(Keyword::By));
    after.get(..end.map_or(after.len(), |end| end + 1)).unwrap_or(after)
}

/// Reads a from-clause.
fn origin_of(clause: &[Word<'_>]) -> From {
    let name = match clause.first() {
        Some(Word::Atom(atom)) => atom.trim_end_matches('.'),
        _ => "",
    };
    let mut comments = clause.iter().filter_map(|word| match word {
        Word::Comment(text) => Some(*text),
        Word::Atom(_) => None,
    });
    let mut seen = Seen::default();
    comments.by_ref().take(FROM_COMMENTS_MAX).for_each(|comment| seen.read_comment(comment));
    // SurfControl and SMTPD32 write the address bare behind the name: `from host [192.0.2.1]`.
    let bare = clause.iter().skip(1).filter_map(|word| match word {
        Word::Atom(atom) => bracketed_ip(atom),
        Word::Comment(_) => None,
    });
    let mut addresses = std::mem::take(&mut seen.ips);
    addresses.extend(bare.take(ADDRESSES_MAX));
    // Why: an address outweighs the words of a local program, which a client's PTR could imitate.
    if seen.is_local && addresses.is_empty() {
        return From::Local;
    }
    // Why: where the HELO stands elsewhere, the name in front is the host's own word.
    if addresses.is_empty() || seen.helo.is_some() {
        addresses.extend(ip_of(name));
    }
    let mut addresses = addresses.into_iter();
    match addresses.next() {
        Some(ip) => {
            let helo = seen.helo.unwrap_or_else(|| name.to_owned());
            let others = addresses.filter(|other| *other != ip).take(ADDRESSES_MAX).collect();
            From::Client(Client { ip, helo, rdns: seen.rdns, others })
        }
        None => From::Unsaid { name: name.to_owned() },
    }
}

/// Addresses read of one from-clause; real ones have one, seldom two.
const ADDRESSES_MAX: usize = 8;

/// Comments of a from-clause that are looked at; Sendmail writes up to three.
const FROM_COMMENTS_MAX: usize = 4;

/// What the comments of a from-clause say.
#[derive(Default)]
struct Seen {
    ips: Vec<IpAddr>,
    helo: Option<String>,
    rdns: Option<String>,
    is_local: bool,
}

impl Seen {
    /// Postfix `unknown [192.0.2.1]`, Sendmail `host [192.0.2.1] (may be forged)`, Exim
    /// `[192.0.2.1]:25 helo=name` and `helo=name`, qmail `HELO name` and `192.0.2.1`, Exchange
    /// `192.0.2.1`, CommuniGate `HELO name`, OpenSMTPD `host [local]`, Sendmail's `uid 0`.
    fn read_comment(&mut self, comment: &str) {
        let mut words = comment.split_whitespace();
        let mut names = Vec::new();
        while let Some(word) = words.next() {
            if word.eq_ignore_ascii_case("helo") || word.eq_ignore_ascii_case("ehlo") {
                self.helo = self.helo.take().or_else(|| words.next().map(str::to_owned));
            } else if let Some((key, value)) = word.split_once('=') {
                if key.eq_ignore_ascii_case("helo") {
                    self.helo.get_or_insert_with(|| value.to_owned());
                }
            } else if word == "[local]" || word.eq_ignore_ascii_case("uid") {
                self.is_local = true;
            } else if let Some(ip) = bracketed_ip(word) {
                if self.ips.is_empty() {
                    self.rdns = names.pop().filter(|_| !comment.contains("may be forged"));
                }
                self.add(ip);
            } else {
                names.push(word.to_owned());
            }
        }
        // Why: a bare address counts only when the comment holds nothing else but an ident:
        // text of other comments (`version=TLS1_2 …`, `Authenticated sender: …`) is no address.
        if let [only] = names.as_slice() {
            ip_of(only.rsplit('@').next().unwrap_or_default())
                .into_iter()
                .for_each(|ip| self.add(ip));
        }
    }

    fn add(&mut self, ip: IpAddr) {
        if self.ips.len() < ADDRESSES_MAX {
            self.ips.push(ip);
        }
    }
}

/// `[192.0.2.1]`, `[192.0.2.1]:25`, `[IPv6:2001:db8::1]`, `joe@[192.0.2.1]`.
fn bracketed_ip(word: &str) -> Option<IpAddr> {
    let (before, rest) = word.split_once('[')?;
    let (inner, after) = rest.split_once(']')?;
    let is_ident = before.is_empty() || before.ends_with('@');
    let is_port = after.is_empty() || after.starts_with([':', ')', ';', ',', '.']);
    (is_ident && is_port).then(|| ip_of(inner)).flatten()
}

fn ip_of(text: &str) -> Option<IpAddr> {
    let inner = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(text);
    let inner = match inner.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => inner.get(5..).unwrap_or_default(),
        _ => inner,
    };
    let inner = inner.split_once('%').map_or(inner, |(ip, _zone)| ip);
    inner.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// Splits off the date behind the last `;` that stands in no comment; without a date, nothing.
///
/// Why: from behind, because a date has no `;` and what stands before it may have several.
fn split_date(value: &str) -> (&str, Option<Timestamp>) {
    let mut depth = 0usize;
    for (at, byte) in value.bytes().enumerate().rev() {
        match byte {
            b')' => depth += 1,
            b'(' => depth = depth.saturating_sub(1),
            b';' if depth == 0 => {
                let date = value.get(at + 1..).and_then(Timestamp::parse_header_date);
                let trace = date.and_then(|_| value.get(..at)).unwrap_or(value);
                return (trace, date);
            }
            _ => {}
        }
    }
    (value, None)
}

/// The words of the trace part: atoms, and comments with their inner text.
fn words(trace: &str) -> Vec<Word<'_>> {
    let mut words = Vec::with_capacity(WORDS_USUAL);
    let bound = trace.floor_char_boundary(RECEIVED_BYTES_MAX);
    let mut rest = trace.get(..bound).unwrap_or_default().trim_start();
    while !rest.is_empty() && words.len() < RECEIVED_WORDS_MAX {
        let (word, after) = match rest.strip_prefix('(') {
            Some(inner) => {
                let end = comment_end(inner);
                let after = inner.get(end..).unwrap_or_default();
                let after = after.strip_prefix(')').unwrap_or(after);
                (Word::Comment(inner.get(..end).unwrap_or(inner)), after)
            }
            None => {
                let end = atom_end(rest);
                (Word::Atom(rest.get(..end).unwrap_or(rest)), rest.get(end..).unwrap_or_default())
            }
        };
        words.push(word);
        rest = after.trim_start();
    }
    words
}

/// Words that are made room for.
const WORDS_USUAL: usize = 16;

/// Where an atom ends: at white space or a comment; a path in angle brackets is one atom.
fn atom_end(text: &str) -> usize {
    let path = path_length(text);
    let rest = text.get(path..).unwrap_or_default();
    let is_end = |at: usize, c: char| c.is_whitespace() || (c == '(' && path + at > 0);
    // Why bytes first: nearly every atom is ASCII, and is passed over faster so.
    let plain = rest
        .bytes()
        .enumerate()
        .position(|(at, byte)| !byte.is_ascii() || is_end(at, char::from(byte)));
    let plain = plain.unwrap_or(rest.len());
    let mut behind = rest.get(plain..).unwrap_or_default().char_indices();
    let end = behind.find(|(at, c)| is_end(plain + at, *c));
    end.map_or(text.len(), |(at, _)| path + plain + at)
}

/// Where the comment whose inner text this is ends: before its `)`.
///
/// Why: Exim puts the reverse-path into a comment as it is, and a quoted local part may hold
/// parentheses: `(envelope-from <"a) id forged ("@b.example>)`. A path is passed over whole.
fn comment_end(inner: &str) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(rest) = inner.get(at..)
        && let Some(next) = memchr::memchr3(b'(', b')', b'<', rest.as_bytes())
    {
        at += next;
        let rest = rest.get(next..).unwrap_or_default();
        match rest.as_bytes().first() {
            Some(b'(') if depth < COMMENT_DEPTH_MAX => depth += 1,
            Some(b')') if depth == 0 => return at,
            Some(b')') => depth -= 1,
            _ => {}
        }
        at += path_length(rest).max(1);
    }
    inner.len()
}

/// The length of the path in angle brackets at the start of the text; 0 when there is none.
fn path_length(text: &str) -> usize {
    if !text.starts_with('<') {
        return 0;
    }
    let bound = text.floor_char_boundary(ADDRESS_BYTES_MAX + 2);
    let mut outside = unquoted(text.get(..bound).unwrap_or_default()).skip(1);
    let end = outside.find(|(_, c)| matches!(c, '<' | '>') || c.is_whitespace());
    end.filter(|(_, c)| *c == '>').map_or(0, |(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The client's address, HELO and reverse name.
    type Shown = (&'static str, &'static str, Option<&'static str>);

    /// Lines, each with its client.
    const CLIENTS: &[(&str, Shown)] = &[
        // Postfix
        (
            "from forged.example (unknown [192.0.2.55]) by mx.test (Postfix) with ESMTP id C3",
            ("192.0.2.55", "forged.example", Some("unknown")),
        ),
        (
            "from h (r.example [IPv6:2001:db8::7]) (using TLSv1.3) by mx.test (Postfix)",
            ("2001:db8::7", "h", Some("r.example")),
        ),
        // Exim
        (
            "from [192.0.2.1] (helo=forged.example) by ex.test with esmtp (Exim 4.96)",
            ("192.0.2.1", "forged.example", None),
        ),
        (
            "from r.example ([192.0.2.1]:4711 helo=[127.0.0.1] ident=x) by ex.test with esmtps",
            ("192.0.2.1", "[127.0.0.1]", None),
        ),
        ("from r.example ([192.0.2.1]) by ex.test", ("192.0.2.1", "r.example", None)),
        // Sendmail
        (
            "from h (joe@r.example [192.0.2.1] (may be forged)) (authenticated bits=0) by s.test",
            ("192.0.2.1", "h", None),
        ),
        // Exchange
        (
            "from a.test (192.0.2.9) by b.test (198.51.100.1) with Microsoft SMTP Server \
                 (version=TLS1_2, cipher=X) id 15.20.1.2; Thu, 1 Jan 2026 00:00:00 +0000",
            ("192.0.2.9", "a.test", None),
        ),
        ("from a.test (2001:db8::5) by b.test with mapi", ("2001:db8::5", "a.test", None)),
        // qmail
        (
            "from unknown (HELO 10.0.0.1) (192.0.2.20) by mx.test with SMTP; 8 Jun 2008",
            ("192.0.2.20", "10.0.0.1", None),
        ),
        ("from unknown (HELO x) (joe@192.0.2.20) by mx.test with SMTP", ("192.0.2.20", "x", None)),
        // others
        ("from [192.0.2.3] by server-0.test id DB/FE; Thu", ("192.0.2.3", "[192.0.2.3]", None)),
        ("from (192.0.2.4) by p.test (PowerMTA(TM) v3.5r16) id h", ("192.0.2.4", "", None)),
        (
            "from [192.0.2.5] (account joe@a.test HELO pc) by cgp.test (CommuniGate Pro SMTP 6)",
            ("192.0.2.5", "pc", None),
        ),
        ("from host [192.0.2.120] by f0.test - SurfControl", ("192.0.2.120", "host", None)),
        (
            "from 192.0.2.7 (EHLO x) ([192.0.2.8]) by j.test (JAMES SMTP Server ) with ESMTPA",
            ("192.0.2.8", "x", None),
        ),
        ("from mx.test ([127.0.0.1]) by mx.test with LMTP id a==", ("127.0.0.1", "mx.test", None)),
        ("from x (y [::ffff:192.0.2.1]) by z", ("192.0.2.1", "x", Some("y"))),
    ];

    #[test]
    fn the_client_in_the_forms_of_many_servers() {
        for (value, (ip, helo, rdns)) in CLIENTS {
            let line = Received::parse(value);
            let client = line.client().unwrap_or_else(|| panic!("{value}: {line:?}"));
            let found = (client.ip.to_string(), client.helo.as_str(), client.rdns.as_deref());
            assert_eq!(found, (ip.to_string(), *helo, *rdns), "{value}");
        }
    }

    #[test]
    fn a_helo_never_stands_for_the_address() {
        for value in [
            "from [127.0.0.1] (unknown [192.0.2.1]) by mx.test (Postfix) with SMTP id X",
            "from [192.0.2.1] (helo=[127.0.0.1]) by ex.test with smtp",
            "from [127.0.0.1] (192.0.2.1) by ex.test with Microsoft SMTP Server id 15",
            "from unknown (HELO [127.0.0.1]) (192.0.2.1) by q.test with SMTP",
            "from by (by [192.0.2.1]) by mx.test (Postfix) with SMTP id X",
            "from from (unknown [192.0.2.1]) by mx.test (Postfix) with SMTP id X",
            "from x (uid [192.0.2.1] (may be forged)) by s.test (8.14/8.14) with SMTP id X",
        ] {
            let line = Received::parse(value);
            assert_eq!(line.client().unwrap().ip.to_string(), "192.0.2.1", "{value}");
            assert!(line.by.unwrap().ends_with(".test"), "{value}");
        }
    }

    #[test]
    fn a_reverse_path_in_a_comment_breaks_out_of_nothing() {
        let line = Received::parse(
            "from [192.0.2.1] (helo=x) by ex.test with esmtp (Exim 4.96) \
             (envelope-from <\"a) id forged for x ([127.0.0.1]) (\"@b.example>) id real; Thu",
        );
        assert_eq!(line.id.as_deref(), Some("real"));
        assert_eq!(line.by.as_deref(), Some("ex.test"));
        let path = line.envelope_from.unwrap();
        assert!(path.address().unwrap().domain().unwrap().as_str() == "b.example");
    }

    #[test]
    fn a_quoted_quote_ends_no_quotation() {
        let line = Received::parse(
            "from [192.0.2.1] (helo=x) by ex.test with esmtp (Exim 4.96) \
             (envelope-from <\"a\\\") id forged (\"@b.example>) id real; Thu",
        );
        assert_eq!(line.id.as_deref(), Some("real"));
        assert_eq!(line.envelope_from.unwrap().to_string(), "\"a\\\") id forged (\"@b.example");
    }

    #[test]
    fn what_was_made_on_the_host_has_no_client() {
        for value in [
            "by mx.test (Postfix) id DAA7F514003; Sat, 21 Nov 2026 17:38:59 +0000 (UTC)",
            "by mx.test (Postfix, from userid 1000) id DC8118F61; Sun, 25 Jan 2009 09:34:58 +0000",
            "from Debian-exim by ex.test with local (Exim 4.96) id 1xUpID-0000ay-0d for v1@b.test",
            "(from root@localhost) by s.test (8.14.9/8.14.9/Submit) id u8; Thu, 1 Jan 2026 00:00:00",
            "from localhost (df.test [local]) by df.test (OpenSMTPD) with ESMTPA id 30bd38ed",
            "from root (uid 0) (envelope-from r@df.test) id e072a by df.test (DragonFly Mail Agent)",
        ] {
            let line = Received::parse(value);
            assert_eq!(line.from, From::Local, "{value}");
            assert!(line.by.as_deref().unwrap().ends_with(".test"), "{value}");
            assert!(!line.is_qmail_step(), "{value}");
        }
        assert!(Received::parse("(qmail 21084 invoked from network); 12 Jun 2013").is_qmail_step());
        assert!(Received::parse("(qmail 5 invoked for bounce); 12 Jun 2013").is_qmail_step());
    }

    #[test]
    fn a_client_without_an_address_is_no_local_program() {
        for value in [
            "from localhost (localhost) by s.test (8.14.9/8.14.9) id u8CJ; Thu",
            "from a.example by b.test with SMTP id 5",
            "from tcp-daemon.a.example by a.example (Oracle) id <0N@a.example>; Sat",
        ] {
            let line = Received::parse(value);
            assert!(matches!(line.from, From::Unsaid { .. }), "{value}: {line:?}");
        }
    }

    #[test]
    fn a_hostile_line_costs_its_bound() {
        for piece in ["<", "<\"", "(<\"", "(", "a ", "[", "by "] {
            let line = Received::parse(&piece.repeat(200_000));
            assert_eq!(line.client(), None);
        }
    }

    #[test]
    fn all_that_a_line_says() {
        let line = Received::parse(
            "from [127.0.0.1] (helo=forged.example) by ex.test with esmtpsa (Exim 4.96) \
             (envelope-from <v1@bank.test>) id 1xUpID-0000au-0O for u@remote.test; \
             Sat, 21 Nov 2026 17:54:29 +0000",
        );
        assert_eq!(line.by.as_deref(), Some("ex.test"));
        assert_eq!(line.id.as_deref(), Some("1xUpID-0000au-0O"));
        assert_eq!(line.recipient.as_deref(), Some("u@remote.test"));
        assert_eq!(line.envelope_from.as_ref().unwrap().to_string(), "v1@bank.test");
        assert!(line.is_authenticated());
        assert_eq!(line.date.unwrap().to_string(), "2026-11-21T17:54:29.000Z");
        let line =
            Received::parse("by m.test. (Postfix) with LMTP id <A@b>; x; 1 Jan 2026 00:00:00 GMT");
        assert_eq!(line.by.as_deref(), Some("m.test"));
        assert_eq!(line.id.as_deref(), Some("A@b"));
        assert!(line.is_lmtp() && line.date.is_some());
        assert_eq!(Received::parse(""), Received::default());
    }

    proptest! {
        #[test]
        fn any_text_is_read(value in "\\PC{0,200}") {
            Received::parse(&value);
        }

        #[test]
        fn hostile_lines_are_read(value in "(from |by |\\(|\\)|<|>|\"|;|\\[|\\]|helo=|@| |[a-z0-9.:]{1,4}){0,40}") {
            Received::parse(&value);
        }

        #[test]
        fn the_writers_address_wins_whatever_the_helo(helo in "[!-'*-~]{1,30}") {
            let line = Received::parse(&format!("from {helo} (unknown [192.0.2.1]) by mx.test (Postfix) with SMTP id X; Sat, 21 Nov 2026 17:54:29 +0000"));
            prop_assert_eq!(line.client().map(|client| client.ip.to_string()), Some("192.0.2.1".to_owned()));
            prop_assert_eq!(line.by.as_deref(), Some("mx.test"));
        }
    }
}
