//! One header: its fields in their order, and what the common ones say.
//!
//! Takes: bytes of a message's header, a MIME part's, an embedded message's, a group of a
//! message/delivery-status, or a header quoted in plain text; any line ends, folded or not.
//! Gives: `Fields` and `Field`, and the typed readers `AutoSubmitted`, `Precedence`, `list_id`,
//! `message_ids`, `reverse_path`. Errors: none; a line that is no field is left out.
//! Bounds: `limits::FIELDS_MAX`, `limits::FIELD_BYTES_MAX`, `limits::MAILBOXES_MAX`,
//! `limits::MESSAGE_IDS_MAX`.
//! Standards: RFC 5322 §2.2 and §4.5 (obsolete syntax), RFC 2047, RFC 2919 §3, RFC 3464 §2.1,
//! RFC 3834 §5, RFC 5436 §2.7.1.

use std::borrow::Cow;
use std::string::FromUtf8Error;
use std::sync::OnceLock;

use mail_parser::parsers::MessageStream;
use mail_parser::{Addr, HeaderValue};

use crate::mail::address::{Address, ReversePath};
use crate::mail::limits::{
    FIELD_BYTES_MAX, FIELDS_MAX, MAILBOXES_MAX, MESSAGE_ID_BYTES_MAX, MESSAGE_IDS_MAX,
};
use crate::mail::time::Timestamp;

/// The fields of one header, in order; duplicates are kept.
#[derive(Clone, Debug, Default)]
pub struct Fields<'a> {
    list: Vec<Field<'a>>,
    end: usize,
    completeness: Completeness,
    authors: OnceLock<Vec<Mailbox>>,
}

/// Whether everything was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Completeness {
    /// Yes.
    #[default]
    Whole,
    /// No: it was longer than the bound.
    Truncated,
}

impl<'a> Fields<'a> {
    /// Reads fields up to and including the first empty line, or to the end of `bytes`.
    ///
    /// Lines that are no fields (an mbox `From ` line, text without a colon) are passed over. A
    /// line that starts with `--` ends the header: no field name does, but a MIME boundary that
    /// follows a header without an empty line must not be swallowed.
    pub fn read(bytes: &'a [u8]) -> Fields<'a> {
        let mut fields = Fields { list: Vec::with_capacity(FIELDS_USUAL), ..Fields::default() };
        let mut at = 0;
        // Where the value of the field that may still go on began, and its name.
        let mut open: Option<(&'a str, usize)> = None;
        while let Some(line) = line_at(bytes, at) {
            let text = without_line_end(line);
            if text.is_empty() || line.starts_with(b"--") {
                fields.close(bytes, open.take(), at);
                fields.end = if text.is_empty() { at + line.len() } else { at };
                return fields;
            }
            if !line.starts_with(b" ") && !line.starts_with(b"\t") {
                fields.close(bytes, open.take(), at);
                if fields.list.len() == FIELDS_MAX {
                    fields.completeness = Completeness::Truncated;
                    fields.end = header_end(bytes, at);
                    return fields;
                }
                open = field_name(text).map(|(name, value)| (name, at + value));
            }
            at += line.len();
        }
        fields.close(bytes, open, at);
        fields.end = at;
        fields
    }

    fn close(&mut self, bytes: &'a [u8], open: Option<(&'a str, usize)>, end: usize) {
        if let Some((name, start)) = open {
            let raw = bytes.get(start..end).unwrap_or_default();
            self.list.push(Field { name, raw });
        }
    }

    /// Where the header ended: the first byte behind its empty line.
    pub fn end(&self) -> usize {
        self.end
    }

    /// Whether all fields were read.
    pub fn completeness(&self) -> Completeness {
        self.completeness
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Each field, from the top.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Field<'a>> + ExactSizeIterator {
        self.list.iter()
    }

    /// Each field of this name, from the top.
    pub fn all(&self, name: &str) -> impl DoubleEndedIterator<Item = &Field<'a>> {
        self.list.iter().filter(move |field| field.is(name))
    }

    /// The topmost field of this name.
    pub fn first(&self, name: &str) -> Option<&Field<'a>> {
        self.list.iter().find(|field| field.is(name))
    }

    /// The topmost field of this name as text, unfolded.
    pub fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        self.first(name).map(Field::text)
    }

    /// Whether a field of this name is there.
    pub fn has(&self, name: &str) -> bool {
        self.first(name).is_some()
    }

    /// The mailboxes of all From fields, in order. Read once: many rules ask for them.
    pub fn authors(&self) -> &[Mailbox] {
        self.authors.get_or_init(|| self.all("from").flat_map(Field::mailboxes).collect())
    }

    /// Those of them that are addresses.
    pub fn author_addresses(&self) -> impl Iterator<Item = &Address> {
        self.authors().iter().filter_map(|mailbox| mailbox.address.as_ref())
    }
}

/// Fields that are made room for; headers of parts have fewer, those of messages seldom many more.
const FIELDS_USUAL: usize = 16;

/// One field.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    name: &'a str,
    raw: &'a [u8],
}

impl<'a> Field<'a> {
    /// The name in its letter case.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Whether this is its name, in any letter case.
    pub fn is(&self, name: &str) -> bool {
        self.name.len() == name.len() && self.name.eq_ignore_ascii_case(name)
    }

    /// The value as it stands: folds and line end included.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// The value unfolded and trimmed; what is not UTF-8 stands as U+FFFD. At most
    /// `limits::FIELD_BYTES_MAX` bytes of it are looked at.
    pub fn text(&self) -> Cow<'a, str> {
        let value = bounded(self.raw).trim_ascii();
        let mut line_ends = memchr::memchr2_iter(b'\r', b'\n', value).peekable();
        if line_ends.peek().is_none() {
            return lossy(value);
        }
        let mut unfolded = Vec::with_capacity(value.len());
        let mut from = 0;
        for at in line_ends {
            unfolded.extend_from_slice(value.get(from..at).unwrap_or_default());
            from = at + 1;
        }
        unfolded.extend_from_slice(value.get(from..).unwrap_or_default());
        Cow::Owned(lossy_owned(unfolded))
    }

    /// The value as people read it: unfolded, encoded words decoded (RFC 2047).
    pub fn decoded(&self) -> Cow<'a, str> {
        let plain = self.text();
        if !plain.contains("=?") {
            return plain;
        }
        let line = one_line(&plain);
        match MessageStream::new(line.as_bytes()).parse_unstructured() {
            HeaderValue::Text(text) => Cow::Owned(text.trim().to_owned()),
            _ => plain,
        }
    }

    /// The mailboxes of an address field (RFC 5322 §3.4), group members included; what is no
    /// address is left out.
    pub fn addresses(&self) -> Vec<Address> {
        self.mailboxes().into_iter().filter_map(|mailbox| mailbox.address).collect()
    }

    /// The mailboxes of an address field with their display names.
    pub fn mailboxes(&self) -> Vec<Mailbox> {
        let line = one_line(&self.text());
        let HeaderValue::Address(list) = MessageStream::new(line.as_bytes()).parse_address() else {
            return Vec::new();
        };
        list.iter().take(MAILBOXES_MAX).map(Mailbox::from_parsed).collect()
    }

    /// The Message-IDs of the value; see `message_ids`.
    pub fn message_ids(&self) -> Vec<String> {
        message_ids(&self.text())
    }

    /// The value as a date (RFC 5322 §3.3).
    pub fn date(&self) -> Option<Timestamp> {
        Timestamp::parse_header_date(&self.text())
    }
}

/// One mailbox of an address field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mailbox {
    /// The display name or comment, decoded; empty when there is none.
    pub name: String,
    /// What stands for an address, as text: `MAILER-DAEMON` has no domain, and is a sign too.
    pub text: String,
    /// The address; `None` when the text is none.
    pub address: Option<Address>,
}

impl Mailbox {
    fn from_parsed(parsed: &Addr<'_>) -> Mailbox {
        let name = parsed.name.as_deref().unwrap_or_default().trim();
        let text = parsed.address.as_deref().unwrap_or_default().trim();
        // Why: a word alone is an address without a domain (`From: MAILER-DAEMON`), not a name.
        let (name, text) = match text.is_empty() && !name.contains(char::is_whitespace) {
            true => ("", name),
            false => (name, text),
        };
        Mailbox { name: name.to_owned(), text: text.to_owned(), address: Address::parse(text) }
    }

    /// The local part, or the whole text when it has no domain.
    pub fn local(&self) -> &str {
        self.text.rsplit_once('@').map_or(self.text.as_str(), |(local, _)| local)
    }
}

/// What Auto-Submitted says (RFC 3834 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoSubmitted {
    /// `no`: a person sent it.
    No,
    /// `auto-generated`: not in reply to a message.
    Generated,
    /// `auto-replied`: in reply to a message.
    Replied,
    /// `auto-notified` (RFC 5436 §2.7.1).
    Notified,
    /// Another word: automatic, RFC 3834 §5 says no more.
    Other,
}

impl AutoSubmitted {
    /// Reads the value: the token before `;`, a comment or white space, in any letter case.
    ///
    /// `auto-reply` and the like are taken for `auto-replied`: what they mean is plain.
    pub fn parse(value: &str) -> Option<AutoSubmitted> {
        let token = token(value);
        let is = |word: &str| token.eq_ignore_ascii_case(word);
        let begins = |start: &str| {
            token.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start))
        };
        Some(match token {
            "" => return None,
            _ if is("no") => AutoSubmitted::No,
            _ if is("auto-generated") => AutoSubmitted::Generated,
            _ if is("auto-notified") => AutoSubmitted::Notified,
            _ if begins("auto-repl") || begins("autorepl") => AutoSubmitted::Replied,
            _ => AutoSubmitted::Other,
        })
    }
}

/// What Precedence says: a habit without a standard, as old as Sendmail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precedence {
    /// `bulk`.
    Bulk,
    /// `junk`.
    Junk,
    /// `list`.
    List,
    /// `auto_reply`, as several responders write it.
    AutoReply,
    /// Anything else; `first-class` above all.
    Other,
}

impl Precedence {
    /// Reads the value in any letter case.
    pub fn parse(value: &str) -> Option<Precedence> {
        let token = token(value);
        let is = |word: &str| token.eq_ignore_ascii_case(word);
        Some(match token {
            "" => return None,
            _ if is("bulk") => Precedence::Bulk,
            _ if is("junk") => Precedence::Junk,
            _ if is("list") => Precedence::List,
            _ if is("auto_reply") || is("auto-reply") || is("autoreply") => Precedence::AutoReply,
            _ => Precedence::Other,
        })
    }
}

/// The identifier of a List-Id field, without its phrase and brackets (RFC 2919 §3).
pub fn list_id(value: &str) -> Option<&str> {
    let inner = match value.rsplit_once('<') {
        Some((_, rest)) => rest.split('>').next().unwrap_or_default(),
        None => value,
    };
    let id = inner.trim();
    (!id.is_empty()).then_some(id)
}

/// The Message-IDs of a value, without their angle brackets, in order (RFC 5322 §3.6.4).
///
/// Takes: an unfolded value of Message-ID, In-Reply-To, References and their like. Real servers
/// also write the id without brackets: a value of one word is taken as it is. White space inside
/// brackets (a long id folded on the way) is left out.
pub fn message_ids(value: &str) -> Vec<String> {
    let mut ids = Vec::new();
    let mut rest = value;
    while let Some((_, inner)) = rest.split_once('<') {
        let Some((id, after)) = inner.split_once('>') else { break };
        push_id(&mut ids, id);
        rest = after;
    }
    let bare = value.trim();
    if ids.is_empty() && !bare.contains(|c: char| c.is_whitespace() || matches!(c, '<' | '>')) {
        push_id(&mut ids, bare);
    }
    ids
}

/// Why: of a long References chain the last ids are the near ones, so the first are dropped.
fn push_id(ids: &mut Vec<String>, text: &str) {
    let id: String = match text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => text.to_owned(),
        false => text.chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect(),
    };
    if id.is_empty() || id.len() > MESSAGE_ID_BYTES_MAX {
        return;
    }
    if ids.len() == MESSAGE_IDS_MAX {
        ids.remove(0);
    }
    ids.push(id);
}

/// The value of a Return-Path field, or of another field that names a reverse-path.
///
/// `<>` and an empty value are the null reverse-path, and so is `MAILER-DAEMON` without a domain:
/// Postfix and Sendmail write that word where the null reverse-path needs a name.
pub fn reverse_path(value: &str) -> Option<ReversePath> {
    let value = value.trim();
    if let Some(address) = Address::parse(value) {
        return Some(ReversePath::Address(address));
    }
    // Why: a quoted local part may hold brackets, and a name a single quote.
    let open = find_unquoted(value, '<').or_else(|| value.find('<'));
    let rest = open.and_then(|at| value.get(at + 1..)).unwrap_or(value);
    let end = open.and_then(|_| find_unquoted(rest, '>').or_else(|| rest.find('>')));
    let inner = end.and_then(|end| rest.get(..end)).unwrap_or(rest).trim();
    if inner.is_empty() || inner.eq_ignore_ascii_case("mailer-daemon") || inner == "null" {
        return Some(ReversePath::Null);
    }
    Address::parse(inner).map(ReversePath::Address)
}

fn find_unquoted(text: &str, wanted: char) -> Option<usize> {
    unquoted(text).find(|(_, c)| *c == wanted).map(|(at, _)| at)
}

/// The characters outside quoted strings, each with where it stands. Inside, a backslash takes the
/// meaning of the next character (RFC 5322 §3.2.4).
pub fn unquoted(text: &str) -> impl Iterator<Item = (usize, char)> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.char_indices().filter(move |(_, c)| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match c {
            _ if was_escaped => false,
            '\\' if is_quoted => {
                is_escaped = true;
                false
            }
            '"' => {
                is_quoted = !is_quoted;
                false
            }
            _ => !is_quoted,
        }
    })
}

/// The first token of a value: up to `;`, a comment or white space.
fn token(value: &str) -> &str {
    let mut rest = value.trim_start();
    while let Some((_, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
        rest = after.trim_start();
    }
    let end = rest.find(|c: char| c.is_whitespace() || matches!(c, ';' | '(' | ','));
    let token = end.and_then(|end| rest.get(..end)).unwrap_or(rest);
    token.trim_matches('"')
}

/// Bytes as text; what is not UTF-8 stands as U+FFFD.
///
/// Why not the library's alone: it looks at every character, and nearly all bytes are ASCII.
pub fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

/// The same of bytes that are at hand.
pub fn lossy_owned(bytes: Vec<u8>) -> String {
    let broken = |fault: FromUtf8Error| String::from_utf8_lossy(fault.as_bytes()).into_owned();
    String::from_utf8(bytes).unwrap_or_else(broken)
}

/// The line that starts at `at`, with its line end; `None` at the end of the bytes.
pub fn line_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
    let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
    rest.get(..end)
}

/// A line without its LF or CRLF.
pub fn without_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Splits a line into a field name and where its value begins; `None` when it is no field.
///
/// RFC 5322 §2.2: a name is printable ASCII without the colon; white space before the colon is
/// the obsolete form of RFC 5322 §4.5, and real.
fn field_name(line: &[u8]) -> Option<(&str, usize)> {
    let colon = memchr::memchr(b':', line.get(..NAME_BYTES_MAX).unwrap_or(line))?;
    let name = line.get(..colon)?.trim_ascii_end();
    let is_name = !name.is_empty() && name.iter().all(|byte| byte.is_ascii_graphic());
    let name = std::str::from_utf8(name).ok().filter(|_| is_name)?;
    Some((name, colon + 1))
}

/// Bytes of a field name and its colon; the longest registered one has 45.
const NAME_BYTES_MAX: usize = 128;

/// Where the header that goes on at `at` ends: behind its first empty line.
fn header_end(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    let after = memchr::memchr_iter(b'\n', rest).find_map(|lf| {
        let next = rest.get(lf + 1..)?;
        match next {
            [b'\n', ..] => Some(lf + 2),
            [b'\r', b'\n', ..] => Some(lf + 3),
            _ => None,
        }
    });
    after.map_or(bytes.len(), |after| at + after)
}

fn bounded(value: &[u8]) -> &[u8] {
    value.get(..FIELD_BYTES_MAX).unwrap_or(value)
}

/// Why: the parsers of mail-parser give a value only when a line end follows it.
fn one_line(value: &str) -> String {
    let mut line = String::with_capacity(value.len() + 1);
    line.push_str(value);
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text_of(fields: &Fields<'_>, name: &str) -> Vec<String> {
        fields.all(name).map(|field| field.text().into_owned()).collect()
    }

    #[test]
    fn fields_stand_in_order_with_their_duplicates() {
        let header = b"From x@y Thu Jun 19 19:30:33 2008\r\nSubject: one\r\n two\r\nX-A : b\r\n\
            junk without colon\r\n folded junk\r\nsubject: again\r\n\r\nBody: no\r\n";
        let fields = Fields::read(header);
        assert_eq!(text_of(&fields, "SUBJECT"), ["one two", "again"]);
        assert_eq!(text_of(&fields, "x-a"), ["b"]);
        assert_eq!(fields.len(), 3);
        assert_eq!(&header[fields.end()..], b"Body: no\r\n");
    }

    #[test]
    fn a_boundary_line_ends_a_header_without_an_empty_line() {
        let bytes = b"Content-Type: text/plain\n--b\nSubject: no\n";
        let fields = Fields::read(bytes);
        assert_eq!(fields.len(), 1);
        assert_eq!(&bytes[fields.end()..], b"--b\nSubject: no\n");
    }

    #[test]
    fn hidden_names_are_no_fields() {
        let fields = Fields::read("Fr om: a@b.example\nF\u{e4}rom: a@b.example\n: x\n".as_bytes());
        assert!(fields.is_empty());
    }

    #[test]
    fn encoded_words_are_decoded() {
        for (raw, decoded) in [
            ("Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\n", "Grüße"),
            ("Subject: =?utf-8?b?w4TDlg==?=\n =?utf-8?b?w5w=?= x\n", "ÄÖÜ x"),
            ("Subject: =?koi8-r?B?8NLJ18XU?=", "Привет"),
            ("Subject: plain =? not", "plain =? not"),
            ("Subject:", ""),
        ] {
            let fields = Fields::read(raw.as_bytes());
            assert_eq!(fields.first("subject").unwrap().decoded(), decoded, "{raw}");
        }
    }

    #[test]
    fn mailboxes_have_names_and_words_without_domain() {
        let mailboxes = |raw: &str| {
            let field = Fields::read(raw.as_bytes()).first("from").unwrap().mailboxes();
            field.into_iter().map(|m| (m.name, m.text)).collect::<Vec<_>>()
        };
        let one = |name: &str, text: &str| vec![(name.to_owned(), text.to_owned())];
        assert_eq!(mailboxes("From: MAILER-DAEMON\n"), one("", "MAILER-DAEMON"));
        assert_eq!(mailboxes("From: <>\n"), []);
        assert_eq!(
            mailboxes("From: Mail Delivery System <MAILER-DAEMON>\n"),
            one("Mail Delivery System", "MAILER-DAEMON")
        );
        assert_eq!(mailboxes("From: joe@a.example (Joe)\n"), one("Joe", "joe@a.example"));
        assert_eq!(
            mailboxes("From: =?utf-8?q?J=C3=B6?= <joe@a.example>"),
            one("Jö", "joe@a.example")
        );
    }

    #[test]
    fn addresses_of_groups_and_several_fields_in_one() {
        let fields = Fields::read(b"From: g: a@a.example, \"B, b\" <b@b.example>;, nonsense\n");
        let found = fields.first("from").unwrap().addresses();
        let found: Vec<_> = found.iter().map(Address::as_str).collect();
        assert_eq!(found, ["a@a.example", "b@b.example"]);
    }

    #[test]
    fn auto_submitted_is_the_token_alone() {
        use AutoSubmitted::{Generated, No, Notified, Other, Replied};
        for (value, meaning) in [
            ("auto-replied (vacation)", Some(Replied)),
            ("Auto-Replied; owner-email=\"x@y\"", Some(Replied)),
            ("auto-generated(failure)", Some(Generated)),
            (" (why) auto-notified; x=y", Some(Notified)),
            ("no", Some(No)),
            ("NO ; auto-replied", Some(No)),
            ("auto-reply", Some(Replied)),
            ("auto-something", Some(Other)),
            ("", None),
        ] {
            assert_eq!(AutoSubmitted::parse(value), meaning, "{value}");
        }
    }

    #[test]
    fn ids_stand_without_brackets() {
        assert_eq!(message_ids("<a@b> (comment) <c@d>"), ["a@b", "c@d"]);
        assert_eq!(message_ids("a@b"), ["a@b"]);
        assert_eq!(message_ids("<a\t@b>"), ["a@b"]);
        assert_eq!(message_ids("Joe's message of \"Thu, 1 Jan\""), Vec::<String>::new());
        assert_eq!(message_ids("<a@b"), Vec::<String>::new());
        let many: String = (0..100).map(|n| format!("<{n}@x>")).collect();
        assert_eq!(message_ids(&many).last().unwrap(), "99@x");
        assert_eq!(message_ids(&many).len(), MESSAGE_IDS_MAX);
    }

    #[test]
    fn the_null_reverse_path_has_many_spellings() {
        for value in ["<>", " < > ", "", "MAILER-DAEMON", "<mailer-daemon>", "<null>"] {
            assert_eq!(reverse_path(value), Some(ReversePath::Null), "{value:?}");
        }
        let joe = reverse_path("Joe <joe@a.example>").unwrap();
        assert_eq!(joe.to_string(), "joe@a.example");
        assert!(!reverse_path("<MAILER-DAEMON@a.example>").unwrap().is_null());
        assert_eq!(reverse_path("nobody"), None);
    }

    #[test]
    fn brackets_in_quotes_end_no_path() {
        for (value, path) in [
            ("<\"a>b\"@x.example>", "\"a>b\"@x.example"),
            ("<\"a\\\">b\"@x.example>", "\"a\\\">b\"@x.example"),
            ("\"J <j>\" <joe@x.example>", "joe@x.example"),
            ("\"a<b\"@x.example", "\"a<b\"@x.example"),
            ("6\" <joe@x.example>", "joe@x.example"),
            ("<joe@x.example> \"", "joe@x.example"),
        ] {
            let found = reverse_path(value).map(|path| path.to_string());
            assert_eq!(found.as_deref(), Some(path), "{value}");
        }
    }

    #[test]
    fn a_list_id_is_what_stands_in_brackets() {
        assert_eq!(list_id("Talk <talk.list.example>"), Some("talk.list.example"));
        assert_eq!(list_id("talk.list.example"), Some("talk.list.example"));
        assert_eq!(list_id("<>"), None);
    }

    #[test]
    fn too_many_fields_are_cut_and_the_body_is_still_found() {
        let mut header = "X-A: b\r\n".repeat(300_000);
        header.push_str("\r\nbody");
        let fields = Fields::read(header.as_bytes());
        assert_eq!(fields.len(), FIELDS_MAX);
        assert_eq!(fields.completeness(), Completeness::Truncated);
        assert_eq!(header.get(fields.end()..), Some("body"));
    }

    #[test]
    fn one_huge_field_costs_its_bound() {
        let header =
            format!("Subject: {}\nFrom: {}\n\n", "=?x?q?".repeat(200_000), "(".repeat(2_000_000));
        let fields = Fields::read(header.as_bytes());
        assert!(fields.first("subject").unwrap().decoded().len() <= 2 * FIELD_BYTES_MAX);
        assert!(fields.first("from").unwrap().mailboxes().len() <= 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let fields = Fields::read(&bytes);
            prop_assert!(fields.end() <= bytes.len());
            for field in fields.iter() {
                let _ = (field.text(), field.decoded(), field.mailboxes(), field.message_ids(), field.date());
            }
        }

        #[test]
        fn hostile_values_are_read(value in "[ \\r\\n\\t=?<>()@:;,\"\\\\a-cQqBb*'0-9]{0,120}") {
            let header = format!("From:{value}\nX: y\n");
            let fields = Fields::read(header.as_bytes());
            for field in fields.iter() {
                let _ = (field.text(), field.decoded(), field.mailboxes(), field.message_ids(), field.date());
            }
        }

        #[test]
        fn line_ends_and_folds_do_not_matter(words in proptest::collection::vec("[a-z=?]{1,9}", 1..8)) {
            let plain = format!("Subject: {}\nX: y\n\n", words.join(" "));
            let folded = format!("Subject: {}\r\nX: y\r\n\r\n", words.join("\r\n "));
            let (plain, folded) = (Fields::read(plain.as_bytes()), Fields::read(folded.as_bytes()));
            prop_assert_eq!(text_of(&plain, "subject"), text_of(&folded, "subject"));
            prop_assert_eq!(plain.len(), folded.len());
        }
    }
}
