//! A message: its bytes, and a read-only view of its header and MIME parts.
//!
//! Takes: the bytes as received, whole or cut at `inspect_max`. Gives: `Message`, `View`, `Part`.
//! Errors: none; reading never fails, what cannot be understood is text.
//! Bounds: `limits::PARTS_MAX`, `limits::PART_DEPTH_MAX`, `limits::BOUNDARY_BYTES_MAX`; one pass
//! over the bytes, no recursion.
//! Standards: RFC 2045 §5, §6 and §8, RFC 2046 §5.1, RFC 2183 §2.3, RFC 6532 §3.7 (message/global).
//!
//! Why the structure is read here and not by mail-parser, whose decoders do the rest: it nests
//! what a message nests, and frees and copies that recursively, so that 118 KB of base64 holding
//! 3,000 nested message/rfc822 end the process (measured with 0.11.9). And an embedded message is
//! the *peer's*: nothing inside it may count as a part of this one. So it is a leaf here.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use bytes::Bytes;
use mail_parser::HeaderValue;
use mail_parser::decoders::base64::base64_decode;
use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::decoders::html::html_to_text;
use mail_parser::decoders::quoted_printable::quoted_printable_decode;
use mail_parser::parsers::MessageStream;

use crate::mail::header::{
    Completeness, Field, Fields, line_at, lossy, lossy_owned, without_line_end,
};
use crate::mail::limits::{BOUNDARY_BYTES_MAX, FIELD_BYTES_MAX, PART_DEPTH_MAX, PARTS_MAX};

/// A message as received.
#[derive(Clone, Debug)]
pub struct Message {
    bytes: Bytes,
    completeness: Completeness,
}

/// How much of a message a tap was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kept {
    /// All of it, or all that a signature could cover.
    #[default]
    Whole,
    /// Its header; the body was too big to keep.
    Header,
    /// Not even the whole header.
    PartOfHeader,
}

impl Message {
    /// A message from its bytes; `Truncated` when they are only its beginning.
    pub fn new(bytes: impl Into<Bytes>, completeness: Completeness) -> Message {
        Message { bytes: bytes.into(), completeness }
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Whether the bytes are all of it.
    pub fn completeness(&self) -> Completeness {
        self.completeness
    }

    /// Its header and parts.
    pub fn view(&self) -> View<'_> {
        View::read(&self.bytes)
    }
}

/// Header and MIME parts of a message, or of one that is embedded in another.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// The header.
    pub fields: Fields<'a>,
    parts: Vec<Part<'a>>,
}

/// One MIME part; the first is the message itself.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    /// Its media type.
    pub media: Media,
    /// The part it stands in: an index into the parts; `None` for the message itself.
    pub parent: Option<usize>,
    /// Where its content stands in the message's bytes, still encoded.
    pub content: Range<usize>,
    /// Whether it holds other parts.
    pub is_container: bool,
    /// Its file name, from Content-Disposition (RFC 2183 §2.3) or Content-Type.
    pub file_name: Option<String>,
    /// Content-Description (RFC 2045 §8); empty when there is none.
    pub description: Cow<'a, str>,
    encoding: Encoding,
    encoded: &'a [u8],
}

/// A media type with its parameters (RFC 2045 §5.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Media {
    /// `type/subtype` in lower case.
    pub kind: String,
    parameters: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Encoding {
    #[default]
    None,
    Base64,
    QuotedPrintable,
}

impl Media {
    /// Reads the value of a Content-Type field; `text/plain` when it is none.
    fn parse(field: &Field<'_>) -> Media {
        // Why: folded as it came. A fold stands for a forgotten `;` in `text/plain⏎ charset=…`; and
        // the parser gives a value only when a line end follows it.
        let raw = field.raw().get(..FIELD_BYTES_MAX).unwrap_or(field.raw());
        let line = [raw, b"\n"].concat();
        match MessageStream::new(&line).parse_content_type() {
            HeaderValue::ContentType(parsed) => {
                let subtype = parsed.c_subtype.as_deref().unwrap_or_default();
                let mut kind = [&parsed.c_type, "/", subtype].concat();
                kind.make_ascii_lowercase();
                let parameters = parsed.attributes.unwrap_or_default().into_iter();
                let parameters =
                    parameters.map(|a| (a.name.to_ascii_lowercase(), a.value.trim().to_owned()));
                Media { kind, parameters: parameters.collect() }
            }
            _ => Media::plain(),
        }
    }

    fn plain() -> Media {
        Media { kind: "text/plain".to_owned(), parameters: Vec::new() }
    }

    /// Whether the type is `type/subtype`, given in lower case.
    pub fn is(&self, kind: &str) -> bool {
        self.kind == kind
    }

    /// Whether this is a multipart of any kind.
    pub fn is_multipart(&self) -> bool {
        self.kind.starts_with("multipart/")
    }

    /// The first parameter of this name (lower case), unquoted.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Whether the parameter has this value, in any letter case.
    pub fn has(&self, name: &str, value: &str) -> bool {
        self.parameter(name).is_some_and(|found| found.eq_ignore_ascii_case(value))
    }
}

impl<'a> Part<'a> {
    /// The content with its transfer encoding undone (RFC 2045 §6); at most the first `bytes_max`
    /// bytes are looked at. What cannot be decoded stands as it came.
    pub fn decoded(&self, bytes_max: usize) -> Cow<'a, [u8]> {
        let encoded = self.encoded.get(..bytes_max).unwrap_or(self.encoded);
        let decoded = match self.encoding {
            Encoding::None => None,
            Encoding::Base64 => base64_decode(encoded),
            Encoding::QuotedPrintable => quoted_printable_decode(encoded),
        };
        decoded.map_or(Cow::Borrowed(encoded), Cow::Owned)
    }

    /// Whether the content stands in the message as it is, without a transfer encoding.
    pub fn is_verbatim(&self) -> bool {
        self.encoding == Encoding::None
    }

    /// The content as text: encodings undone, HTML without its tags; at most the first
    /// `bytes_max` bytes are looked at. What its charset does not know stands as U+FFFD.
    pub fn text(&self, bytes_max: usize) -> Cow<'a, str> {
        let charset = self.media.parameter("charset");
        let kind = charset.map_or(Charset::AsciiBased, Charset::of);
        let is_in_lines = self.encoding != Encoding::Base64;
        let decoder = charset.and_then(|charset| charset_decoder(charset.as_bytes()));
        let text = match (self.decoded(bytes_max), decoder, kind) {
            (bytes, Some(decoder), Charset::Utf7) => Cow::Owned(by_line(&bytes, decoder)),
            // Why not decoded: such text cannot have lines of its own (RFC 2781 §A), and any server
            // that makes CRLF of LF has broken it.
            (bytes, Some(decoder), Charset::Wide) if !is_in_lines => Cow::Owned(decoder(&bytes)),
            (bytes, Some(decoder), Charset::Escaped) => Cow::Owned(decoder(&bytes)),
            (bytes, Some(decoder), Charset::AsciiBased) if !bytes.is_ascii() => {
                Cow::Owned(decoder(&bytes))
            }
            (Cow::Borrowed(bytes), _, _) => lossy(bytes),
            (Cow::Owned(bytes), _, _) => Cow::Owned(lossy_owned(bytes)),
        };
        match self.media.is("text/html") {
            true => Cow::Owned(html_to_text(&text)),
            false => text,
        }
    }
}

/// What the bytes of ASCII mean in a charset.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Charset {
    /// ASCII.
    AsciiBased,
    /// ASCII until an escape sequence says otherwise (ISO 2022, HZ).
    Escaped,
    /// ASCII, but for runs of Base64 (RFC 2152).
    Utf7,
    /// Halves or quarters of characters.
    Wide,
}

impl Charset {
    fn of(name: &str) -> Charset {
        let plain = name.bytes().filter(u8::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase());
        let plain: Vec<u8> = plain.take(CHARSET_NAME_BYTES).collect();
        let plain = plain.strip_prefix(b"cs").unwrap_or(&plain);
        let begins = |names: &[&[u8]]| names.iter().any(|name| plain.starts_with(name));
        if begins(&[b"utf7"]) {
            Charset::Utf7
        } else if begins(&[b"utf16", b"utf32", b"ucs", b"iso10646ucs", b"unicode"]) {
            Charset::Wide
        } else if begins(&[b"iso2022", b"hz"]) {
            Charset::Escaped
        } else {
            Charset::AsciiBased
        }
    }
}

/// Bytes of a charset's name that tell which it is.
const CHARSET_NAME_BYTES: usize = 16;

/// UTF-7, each line for itself.
///
/// Why: a line end closes a run of Base64 (RFC 2152 rule 2) and stays, but the decoder drops
/// whatever byte closes one; so two lines would become one.
fn by_line(bytes: &[u8], decoder: fn(&[u8]) -> String) -> String {
    let mut text = String::with_capacity(bytes.len());
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let bare = without_line_end(line);
        let closed = decoder(&[bare, b"\n"].concat());
        text.push_str(closed.strip_suffix('\n').unwrap_or(&closed));
        if line.len() > bare.len() {
            text.push('\n');
        }
    }
    text
}

impl<'a> View<'a> {
    /// Reads a message from its bytes.
    pub fn read(bytes: &'a [u8]) -> View<'a> {
        let fields = Fields::read(bytes);
        let mut walk = Walk { bytes, parts: Vec::new(), open: Vec::new() };
        walk.push(&fields, fields.end(), None);
        walk.run(fields.end());
        if walk.parts.len() == 1
            && let Some(boundary) = walk.mangled_boundary(fields.end())
        {
            walk.open = vec![Open { part: 0, boundary }];
            walk.run(fields.end());
        }
        View { fields, parts: walk.parts }
    }

    /// The message itself as a part: its media type and its whole content.
    pub fn root(&self) -> Option<&Part<'a>> {
        self.parts.first()
    }

    /// All parts in their order, the message itself first; at most `limits::PARTS_MAX`.
    pub fn parts(&self) -> &[Part<'a>] {
        &self.parts
    }

    /// The parts directly inside a part.
    pub fn children(&self, parent: usize) -> impl Iterator<Item = (usize, &Part<'a>)> {
        let inside = move |(_, part): &(usize, &Part<'a>)| part.parent == Some(parent);
        self.parts.iter().enumerate().filter(inside)
    }

    /// The first part that a person reads: text/plain before text/html, and a multipart that
    /// could not be taken apart for text.
    pub fn first_text(&self) -> Option<&Part<'a>> {
        let leaves = || self.parts.iter().filter(|part| !part.is_container);
        let plain = |part: &&Part<'_>| part.media.is("text/plain") || part.media.is_multipart();
        leaves().find(plain).or_else(|| leaves().find(|part| part.media.is("text/html")))
    }
}

/// Finds what may begin a boundary line.
static DASHES: LazyLock<memchr::memmem::Finder<'static>> =
    LazyLock::new(|| memchr::memmem::Finder::new(b"\n--"));

/// A multipart whose end was not met yet.
struct Open {
    part: usize,
    boundary: Vec<u8>,
}

/// The walk over the lines of a body; flat, one pass.
struct Walk<'a> {
    bytes: &'a [u8],
    parts: Vec<Part<'a>>,
    open: Vec<Open>,
}

/// A boundary line: of which open multipart, and whether it closes it.
struct Delimiter {
    level: usize,
    is_closing: bool,
}

impl<'a> Walk<'a> {
    /// Goes from boundary line to boundary line. What is still open at the end ends there.
    fn run(&mut self, start: usize) {
        let mut at = start;
        // The leaf whose content goes on, and is closed by the next boundary line.
        let mut leaf: Option<usize> = None;
        while !self.open.is_empty() && self.parts.len() < PARTS_MAX {
            let Some((line_start, line, delimiter)) = self.next_delimiter(at) else { break };
            at = line_start + line.len();
            if let Some(leaf) = leaf.take() {
                self.end_content(leaf, line_start);
            }
            for open in self.open.split_off(delimiter.level + 1) {
                self.end_content(open.part, line_start);
            }
            if delimiter.is_closing {
                if let Some(open) = self.open.pop() {
                    self.end_content(open.part, at);
                }
                continue;
            }
            let parent = self.open.last().map(|open| open.part);
            let (fields, content) = self.part_header(at);
            at = content;
            let opened_before = self.open.len();
            let index = self.push(&fields, content, parent);
            leaf = (self.open.len() == opened_before).then_some(index);
        }
    }

    /// The header of a part. Why the second look: old Dovecot writes an empty line too many in
    /// front of it, and without the header the part would be nothing but text.
    fn part_header(&self, at: usize) -> (Fields<'a>, usize) {
        let rest = self.bytes.get(at..).unwrap_or_default();
        let fields = Fields::read(rest);
        let behind = rest.get(fields.end()..).unwrap_or_default();
        let is_late = fields.is_empty()
            && behind.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"content-"));
        if is_late {
            let late = Fields::read(behind);
            let content = at + fields.end() + late.end();
            return (late, content);
        }
        let content = at + fields.end();
        (fields, content)
    }

    /// Adds a part whose content begins at `content`, and opens it when it is a multipart.
    fn push(&mut self, fields: &Fields<'a>, content: usize, parent: Option<usize>) -> usize {
        let index = self.parts.len();
        let media = match fields.first("content-type") {
            Some(field) => Media::parse(field),
            None if self.is_digest(parent) => {
                Media { kind: "message/rfc822".to_owned(), parameters: Vec::new() }
            }
            None => Media::plain(),
        };
        let encoding = fields.text("content-transfer-encoding").unwrap_or_default();
        let encoding = match encoding.trim_matches('"') {
            word if word.eq_ignore_ascii_case("base64") => Encoding::Base64,
            word if word.eq_ignore_ascii_case("quoted-printable") => Encoding::QuotedPrintable,
            _ => Encoding::None,
        };
        let boundary = media.parameter("boundary").unwrap_or_default();
        let opens = media.is_multipart()
            && (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len())
            && self.open.len() < PART_DEPTH_MAX;
        if opens {
            self.open.push(Open { part: index, boundary: boundary.as_bytes().to_vec() });
        }
        let encoded = self.bytes.get(content..).unwrap_or_default();
        let content = content..self.bytes.len();
        if let Some(parent) = parent.and_then(|parent| self.parts.get_mut(parent)) {
            parent.is_container = true;
        }
        let disposition = fields.first("content-disposition").map(Media::parse);
        let file_name = disposition.as_ref().and_then(|named| named.parameter("filename"));
        let file_name = file_name.or_else(|| media.parameter("name")).map(str::to_owned);
        let is_container = false;
        let description = fields.text("content-description").unwrap_or_default();
        let part = Part {
            media,
            parent,
            content,
            is_container,
            file_name,
            description,
            encoding,
            encoded,
        };
        self.parts.push(part);
        index
    }

    /// RFC 2046 §5.1.5: the parts of a digest are messages unless they say otherwise.
    fn is_digest(&self, parent: Option<usize>) -> bool {
        let parent = parent.and_then(|parent| self.parts.get(parent));
        parent.is_some_and(|parent| parent.media.is("multipart/digest"))
    }

    fn end_content(&mut self, index: usize, end: usize) {
        let Some(part) = self.parts.get_mut(index) else { return };
        let start = part.content.start;
        let content = self.bytes.get(start..end.max(start)).unwrap_or_default();
        // RFC 2046 §5.1.1: the line end before a boundary line belongs to the boundary.
        let content = without_line_end(content);
        part.encoded = content;
        part.content = start..start + content.len();
    }

    /// The next line from `at` on that is a boundary line of an open multipart.
    fn next_delimiter(&self, at: usize) -> Option<(usize, &'a [u8], Delimiter)> {
        let mut at = at;
        loop {
            let rest = self.bytes.get(at..)?;
            let start = match rest.starts_with(b"--") && self.is_line_start(at) {
                true => at,
                false => at + DASHES.find(rest)? + 1,
            };
            let line = line_at(self.bytes, start)?;
            if let Some(delimiter) = self.delimiter(line) {
                return Some((start, line, delimiter));
            }
            at = start + line.len().min(2);
        }
    }

    fn is_line_start(&self, at: usize) -> bool {
        at == 0 || self.bytes.get(at - 1) == Some(&b'\n')
    }

    /// RFC 2046 §5.1.2: a boundary line of any open multipart ends the ones inside it.
    fn delimiter(&self, line: &[u8]) -> Option<Delimiter> {
        let text = line.strip_prefix(b"--")?.trim_ascii_end();
        self.open.iter().enumerate().rev().find_map(|(level, open)| {
            let rest = text.strip_prefix(open.boundary.as_slice())?;
            match rest {
                b"" => Some(Delimiter { level, is_closing: false }),
                b"--" => Some(Delimiter { level, is_closing: true }),
                _ => None,
            }
        })
    }

    /// The boundary that the body really uses, when the one that its header names never comes:
    /// the first line `--…` with a `Content-` field below it.
    fn mangled_boundary(&self, start: usize) -> Option<Vec<u8>> {
        let root = self.parts.first().filter(|root| root.media.is_multipart())?;
        let body = self.bytes.get(root.content.start.max(start)..)?;
        let mut at = 0;
        while let Some(line) = line_at(body, at) {
            at += line.len();
            let boundary = line.strip_prefix(b"--").map(<[u8]>::trim_ascii_end).unwrap_or_default();
            let next = line_at(body, at).unwrap_or_default();
            if (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len())
                && next.get(..8).is_some_and(|field| field.eq_ignore_ascii_case(b"content-"))
            {
                return Some(boundary.to_vec());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each part as `depth kind: content`.
    fn shape(message: &[u8]) -> Vec<String> {
        let view = View::read(message);
        let depth = |part: &Part<'_>| {
            let mut depth = 0;
            let mut parent = part.parent;
            while let Some(index) = parent {
                depth += 1;
                parent = view.parts()[index].parent;
            }
            depth
        };
        let content = |part: &Part<'_>| match part.is_container {
            true => String::new(),
            false => part.text(1000).into_owned(),
        };
        let parts = view.parts().iter();
        parts
            .map(|part| format!("{} {}: {}", depth(part), part.media.kind, content(part)))
            .collect()
    }

    const REPORT: &str = "Content-Type: multipart/report; report-type=delivery-status;\n\
        \tboundary=\"out\"\n\npreamble\n--out\nContent-Type: multipart/alternative; boundary=in\n\n\
        --in\n\nplain\n--in\nContent-Type: text/html\n\n<b>rich</b>\n--in--\nepilogue\n--out\n\
        Content-Type: message/rfc822\n\nSubject: x\nContent-Type: multipart/mixed; boundary=own\n\n\
        --own\n\nnever looked into\n--own--\n\n--out--\nend\n";

    #[test]
    fn parts_are_flat_and_an_embedded_message_is_a_leaf() {
        let expected = [
            "0 multipart/report: ",
            "1 multipart/alternative: ",
            "2 text/plain: plain",
            "2 text/html: rich",
            "1 message/rfc822: Subject: x\nContent-Type: multipart/mixed; boundary=own\n\n\
             --own\n\nnever looked into\n--own--\n",
        ];
        assert_eq!(shape(REPORT.as_bytes()), expected);
    }

    #[test]
    fn an_inner_multipart_without_end_is_ended_by_the_outer_boundary() {
        let message = b"Content-Type: multipart/mixed; boundary=a\n\n--a\n\
            Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--a\n\ntwo\n--a--\n";
        assert_eq!(
            shape(message),
            [
                "0 multipart/mixed: ",
                "1 multipart/mixed: ",
                "2 text/plain: one",
                "1 text/plain: two"
            ]
        );
    }

    #[test]
    fn a_boundary_is_a_whole_line_and_never_a_prefix() {
        let message =
            b"Content-Type: multipart/mixed; boundary=a\n\n--a\n\nx --a\n--ab\n--a \t\n\ny";
        assert_eq!(
            shape(message),
            ["0 multipart/mixed: ", "1 text/plain: x --a\n--ab", "1 text/plain: y"]
        );
    }

    #[test]
    fn what_real_servers_break() {
        // A boundary parameter mangled on the way.
        let mangled = b"Content-Type: multipart/report; boundary=xxxx\n\npre\n--real\n\
            Content-Type: text/plain\n\none\n--real\nContent-Type: message/rfc822\n\ntwo\n--real--\n";
        assert_eq!(
            shape(mangled),
            ["0 multipart/report: ", "1 text/plain: one", "1 message/rfc822: two"]
        );
        // An empty line too many before a part's header; no empty line behind one.
        let late =
            b"Content-Type: multipart/mixed; boundary=a\n\n--a\n\nContent-Type: message/rfc822\n\n\
            two\n--a\nContent-Type: text/html\n--a--\n";
        assert_eq!(shape(late), ["0 multipart/mixed: ", "1 message/rfc822: two", "1 text/html: "]);
        // A multipart that is none.
        let none = b"Content-Type: multipart/mixed\n\ntext\n";
        assert_eq!(shape(none), ["0 multipart/mixed: text\n"]);
        // A type without a semicolon before its parameter.
        let bare =
            View::read(b"Content-Type: text/plain\n charset=\"iso-2022-jp\"\n\n\x1b$B$\"\x1b(B");
        assert_eq!(bare.root().unwrap().text(100), "\u{3042}");
    }

    /// A line end closes what a charset began, and a text reads the same whatever ends its lines.
    #[test]
    fn lines_outlive_their_charset() {
        let text = |message: &str| {
            let view = View::read(message.as_bytes());
            view.root().unwrap().text(1000).into_owned()
        };
        for (message, expected) in [
            (
                "Content-Type: text/plain; charset=utf-7\n\n+AOk\nb +AOk-c\nd+0\ne",
                "é\nb éc\nd\u{fffd}\ne",
            ),
            ("Content-Type: text/plain; charset=csUTF7\n\nHi Mom +Jjo--!\n", "Hi Mom ☺-!\n"),
            ("Content-Type: text/plain; charset=utf-16le\n\na\0\nb\0", "a\0\nb\0"),
            (
                "Content-Type: text/plain; charset=UTF-16\nContent-Transfer-Encoding: base64\n\n/v8ACg0K",
                "\nഊ",
            ),
        ] {
            assert_eq!(text(message).replace("\r\n", "\n"), expected, "{message}");
            assert_eq!(text(&message.replace('\n', "\r\n")).replace("\r\n", "\n"), expected);
        }
    }

    #[test]
    fn encodings_are_undone() {
        for (header, body, text) in [
            ("Content-Transfer-Encoding: base64", "R3LDvMOfZQ==", "Gr\u{fc}\u{df}e"),
            ("Content-Transfer-Encoding: BASE64", "R3L!", "R3L!"),
            ("Content-Transfer-Encoding: Quoted-Printable", "a=3D=\r\nb", "a=b"),
            ("Content-Type: text/plain; charset=koi8-r", "\u{0}", "\u{0}"),
            ("Content-Type: text/html", "<p>a&amp;b</p>", "a&b"),
        ] {
            let message = format!("{header}\n\n{body}");
            let view = View::read(message.as_bytes());
            assert_eq!(view.root().unwrap().text(1000).trim_end(), text, "{header}");
        }
        let view = View::read(b"Content-Type: text/plain; charset=koi8-r\n\n\xf0\xd2");
        assert_eq!(view.root().unwrap().text(1000), "\u{41f}\u{440}");
    }

    #[test]
    fn the_text_is_what_a_person_reads_first() {
        let text = |message: &[u8]| {
            View::read(message).first_text().map(|part| part.text(100).trim().to_owned())
        };
        assert_eq!(text(REPORT.as_bytes()).as_deref(), Some("plain"));
        assert_eq!(text(b"Content-Type: text/html\n\n<i>x</i>").as_deref(), Some("x"));
        assert_eq!(text(b"Content-Type: image/png\n\nx"), None);
    }

    #[test]
    fn hostile_structure_is_flat_and_bounded() {
        let nested_messages = "Content-Type: message/rfc822\n\n".repeat(20_000);
        assert_eq!(View::read(nested_messages.as_bytes()).parts().len(), 1);
        let nested_multiparts: String = (0..20_000)
            .map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n"))
            .collect();
        assert!(View::read(nested_multiparts.as_bytes()).parts().len() <= PART_DEPTH_MAX + 1);
        let mut many = "Content-Type: multipart/mixed; boundary=b\n\n".to_owned();
        many.push_str(&"--b\n\nx\n".repeat(200_000));
        assert_eq!(View::read(many.as_bytes()).parts().len(), PARTS_MAX);
        let mut dashes = "Content-Type: multipart/mixed; boundary=b\n\n".to_owned();
        dashes.push_str(&"--c\n".repeat(500_000));
        assert_eq!(View::read(dashes.as_bytes()).parts().len(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let view = View::read(&bytes);
            for part in view.parts() {
                prop_assert!(bytes.get(part.content.clone()).is_some());
                let _ = (part.text(500), part.decoded(500));
            }
        }

        #[test]
        fn hostile_multiparts_are_read(
            body in "(--a|--b|--|\r\n|\n|Content-Type: |multipart/mixed; boundary=b|message/rfc822|x| ){0,60}",
            encoding in "(base64|quoted-printable|8bit)",
        ) {
            let message = format!(
                "Content-Type: multipart/mixed; boundary=a\nContent-Transfer-Encoding: {encoding}\n\n{body}");
            let view = View::read(message.as_bytes());
            for part in view.parts() {
                prop_assert!(message.as_bytes().get(part.content.clone()).is_some());
                let _ = (part.text(500), part.decoded(500));
            }
        }

        #[test]
        fn line_ends_do_not_matter(cut in 0..REPORT.len()) {
            let lf = &REPORT.as_bytes()[..cut];
            let crlf = REPORT.get(..cut).unwrap().replace('\n', "\r\n");
            let normal: Vec<_> = shape(crlf.as_bytes()).iter().map(|s| s.replace('\r', "")).collect();
            prop_assert_eq!(shape(lf), normal);
        }
    }
}
