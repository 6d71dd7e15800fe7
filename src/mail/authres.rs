//! Authentication-Results, read in full (RFC 8601 §2.2).
//!
//! Takes: the value of a header field, folded or not, as bytes; any line ends.
//! Gives: `AuthResults`. What stands in a comment or inside a quoted string is never read as a
//! result, whatever it looks like.
//! Errors: `AuthResultsFault`, and nothing of the field is believed then: a field that is read
//! only in part could say less than its writer meant, or more.
//! Bounds: `limits::AUTH_RESULTS_BYTES_MAX`, `limits::AUTH_RESULTS_MAX`,
//! `limits::AUTH_RESULT_PROPERTIES_MAX`, `limits::COMMENT_DEPTH_MAX`.
//! Standards: RFC 8601 §2.2, RFC 2045 §5.1 (value), RFC 5322 §3.2 (comments, quoted strings).
//!
//! Let through beyond the grammar, because real servers write it and it has one meaning only:
//! unquoted values with `/ : = < > @ , ?` (base64, URIs, IPv6), empty values, `key=value` without
//! a ptype (Microsoft's `action=none`, IronPort's `d=`), `reason=` behind properties, a `;` too
//! many, underscores in keywords. Refused: a missing authserv-id (Microsoft), a missing `;`.

use crate::mail::address::Domain;
use crate::mail::limits::{
    AUTH_RESULT_PROPERTIES_MAX, AUTH_RESULTS_BYTES_MAX, AUTH_RESULTS_MAX, COMMENT_DEPTH_MAX,
};

/// One Authentication-Results field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthResults {
    /// Who says it: quotes removed, lower case; a domain name in A-labels, without a final dot.
    pub authserv_id: String,
    /// The version behind the authserv-id, which is 1; `None` when not said, which means 1.
    pub version: Option<u32>,
    /// What it says, in order; empty for `none`.
    pub results: Vec<MethodResult>,
}

/// One `method=result` with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodResult {
    /// The method, lower case: `spf`, `dkim`, `dmarc`, `arc`, `iprev`, …
    pub method: String,
    /// The method's version behind a slash; `None` when not said.
    pub version: Option<u32>,
    /// The result word, lower case.
    pub result: String,
    /// `reason=`, unquoted.
    pub reason: Option<String>,
    /// `ptype.property=value`, in order.
    pub properties: Vec<Property>,
}

/// One `ptype.property=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// `smtp`, `header`, `body`, `policy`, …; lower case. Empty for a bare `key=value`.
    pub ptype: String,
    /// `mailfrom`, `from`, `d`, …; lower case.
    pub name: String,
    /// The value, unquoted, letter case kept; `""` when nothing stood there. An address keeps the
    /// quotes of its local part: `"a b"@c.example`.
    pub value: String,
}

/// Why a field is no Authentication-Results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {at}: {what}")]
pub struct AuthResultsFault {
    /// Where in the value.
    pub at: usize,
    /// What was expected.
    pub what: &'static str,
}

impl AuthResults {
    /// Reads the value of an Authentication-Results field, folded or not.
    pub fn parse(value: &[u8]) -> Result<AuthResults, AuthResultsFault> {
        let mut reader = Reader { value, at: 0 };
        if value.len() > AUTH_RESULTS_BYTES_MAX {
            return reader.expected("a field of at most 64 KiB");
        }
        reader.gap()?;
        let authserv_id = reader.authserv_id()?;
        let version = match reader.gap()? && reader.peek().is_some_and(|b| b.is_ascii_digit()) {
            true => Some(reader.number()?),
            false => None,
        };
        // Why: what another version means is not known, and the field can't be read by half.
        if version.is_some_and(|version| version != 1) {
            return reader.expected("version 1");
        }
        reader.gap()?;
        let results = reader.results()?;
        Ok(AuthResults { authserv_id, version, results })
    }

    /// The results of one method (lower case) in order, those of a later version left out.
    pub fn of<'a>(&'a self, method: &'a str) -> impl Iterator<Item = &'a MethodResult> {
        let first_version = |result: &MethodResult| result.version.is_none_or(|v| v == 1);
        self.results.iter().filter(move |result| result.method == method && first_version(result))
    }
}

impl MethodResult {
    /// The value of the first such property; `ptype` and `name` in lower case.
    pub fn property(&self, ptype: &str, name: &str) -> Option<&str> {
        let wanted = |property: &&Property| property.ptype == ptype && property.name == name;
        self.properties.iter().find(wanted).map(|property| property.value.as_str())
    }
}

/// Methods of the IANA registry and common ones beside it: `method=result` never stands where a
/// property does, so one that does has lost its `;`.
const METHODS: &[&str] = &[
    "arc",
    "auth",
    "bimi",
    "compauth",
    "dkim",
    "dkim-adsp",
    "dkim-atps",
    "dmarc",
    "dnswl",
    "domainkeys",
    "iprev",
    "rrvs",
    "sender-id",
    "smime",
    "spf",
    "vbr",
];

/// A place in the value. Every method leaves it behind what was read, or gives a fault.
struct Reader<'a> {
    value: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// `authserv-id = value`, without the characters that would make it a result or an address
    /// list. A domain name is brought into one form, as it is compared (RFC 8601 §5).
    fn authserv_id(&mut self) -> Result<String, AuthResultsFault> {
        let id = match self.peek() {
            Some(b'"') => self.quoted()?,
            _ => self.run(|byte| !b"=,<>".contains(&byte))?,
        };
        if id.is_empty() {
            return self.expected("an authserv-id");
        }
        Ok(Domain::parse(&id).map_or_else(|| id.to_lowercase(), |name| name.as_str().to_owned()))
    }

    /// `no-result / 1*resinfo`, each behind its `;`, up to the end.
    fn results(&mut self) -> Result<Vec<MethodResult>, AuthResultsFault> {
        let mut results = Vec::new();
        let mut says_none = false;
        while self.peek().is_some() {
            if !self.eat(b';') {
                return self.expected("`;`");
            }
            self.gap()?;
            if self.is_at_end_of_result() {
                continue;
            }
            match self.result()? {
                Some(_) if results.len() == AUTH_RESULTS_MAX => {
                    return self.expected("fewer results");
                }
                Some(result) => results.push(result),
                None if says_none => return self.expected("one `none`"),
                None => says_none = true,
            }
        }
        if says_none == results.is_empty() {
            return Ok(results);
        }
        self.expected(if says_none { "`none` alone" } else { "a result or `none`" })
    }

    /// `resinfo` behind its `;`; `None` for the word `none`.
    fn result(&mut self) -> Result<Option<MethodResult>, AuthResultsFault> {
        let method = self.keyword("a method")?;
        self.gap()?;
        if method == "none" && self.is_at_end_of_result() {
            return Ok(None);
        }
        let mut version = None;
        if self.eat(b'/') {
            self.gap()?;
            version = Some(self.number()?);
            self.gap()?;
        }
        self.equals()?;
        self.gap()?;
        let word = self.keyword("a result word")?;
        let mut result =
            MethodResult { method, version, result: word, reason: None, properties: Vec::new() };
        loop {
            let gap = self.gap()?;
            if self.is_at_end_of_result() {
                return Ok(Some(result));
            }
            if !gap {
                return self.expected("white space or `;`");
            }
            self.item(&mut result)?;
        }
    }

    /// `reasonspec`, `propspec`, or a bare `key=value`.
    fn item(&mut self, result: &mut MethodResult) -> Result<(), AuthResultsFault> {
        let start = self.at;
        let first = self.keyword("a property")?;
        self.gap()?;
        let (ptype, name) = match self.eat(b'.') {
            true => {
                self.gap()?;
                let name = self.keyword("a property's name")?;
                self.gap()?;
                (first, name)
            }
            false => (String::new(), first),
        };
        if ptype.is_empty() && METHODS.contains(&name.as_str()) {
            return Err(AuthResultsFault { at: start, what: "`;` before a method" });
        }
        self.equals()?;
        let value = self.pvalue()?;
        if ptype.is_empty() && name == "reason" {
            return match result.reason.replace(value) {
                None => Ok(()),
                Some(_) => Err(AuthResultsFault { at: start, what: "one reason" }),
            };
        }
        if result.properties.len() == AUTH_RESULT_PROPERTIES_MAX {
            return self.expected("fewer properties");
        }
        result.properties.push(Property { ptype, name, value });
        Ok(())
    }

    /// `pvalue`, with the white space before it: a token, a quoted string, an address, or nothing.
    fn pvalue(&mut self) -> Result<String, AuthResultsFault> {
        let gap = self.gap()?;
        if self.peek() == Some(b'"') {
            let content = self.quoted()?;
            if self.peek() != Some(b'@') {
                return Ok(content);
            }
            let host = self.run(|_| true)?;
            let escaped = content.replace('\\', "\\\\").replace('"', "\\\"");
            return Ok(format!("\"{escaped}\"{host}"));
        }
        let start = self.at;
        let value = self.run(|_| true)?;
        // Why: `smtp.mailfrom= header.from=joe@bank.example` is an empty value and a property,
        // and not the address `header.from=joe@bank.example`, which the grammar would see in it.
        let before_equals = value.split_once('=').map(|(before, _)| before);
        if gap && before_equals.is_some_and(|key| key.bytes().all(|b| is_keyword(b) || b == b'.')) {
            return Err(AuthResultsFault { at: start, what: "a value, not the next property" });
        }
        Ok(value)
    }

    /// `Keyword` (RFC 5321 §4.1.2) with underscores, in lower case.
    fn keyword(&mut self, what: &'static str) -> Result<String, AuthResultsFault> {
        let rest = self.rest();
        let word = rest.split(|&byte| !is_keyword(byte)).next().unwrap_or_default();
        if word.is_empty() {
            return self.expected(what);
        }
        self.at += word.len();
        Ok(word.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect())
    }

    /// `1*DIGIT`.
    fn number(&mut self) -> Result<u32, AuthResultsFault> {
        let start = self.at;
        let fault = AuthResultsFault { at: start, what: "a number" };
        self.keyword(fault.what)?.parse().map_err(|_| fault)
    }

    fn equals(&mut self) -> Result<(), AuthResultsFault> {
        match self.eat(b'=') {
            true => Ok(()),
            false => self.expected("`=`"),
        }
    }

    /// The longest run of visible characters of UTF-8 that delimit nothing and that `allowed`
    /// lets through; may be empty.
    fn run(&mut self, allowed: fn(u8) -> bool) -> Result<String, AuthResultsFault> {
        let is_inside = |byte: u8| {
            (byte.is_ascii_graphic() || !byte.is_ascii())
                && !b";()\"\\".contains(&byte)
                && allowed(byte)
        };
        let start = self.at;
        let rest = self.rest();
        let run = rest.split(|&byte| !is_inside(byte)).next().unwrap_or_default().to_vec();
        self.at += run.len();
        utf8(run, start)
    }

    /// A quoted string's content, escapes removed and folds undone (RFC 5322 §3.2.4).
    fn quoted(&mut self) -> Result<String, AuthResultsFault> {
        let start = self.at;
        let mut content = Vec::new();
        self.at += 1;
        loop {
            match self.peek() {
                None => return Err(AuthResultsFault { at: start, what: "the closing `\"`" }),
                Some(b'"') => {
                    self.at += 1;
                    return utf8(content, start);
                }
                Some(b'\r' | b'\n') => self.line_end()?,
                Some(_) => content.push(self.text_byte()?),
            }
        }
    }

    /// `[CFWS]`: white space and comments, as many as there are. Whether there was any.
    fn gap(&mut self) -> Result<bool, AuthResultsFault> {
        let start = self.at;
        loop {
            match self.peek() {
                Some(b' ' | b'\t') => self.at += 1,
                Some(b'\r' | b'\n') => self.line_end()?,
                Some(b'(') => self.comment()?,
                _ => return Ok(self.at > start),
            }
        }
    }

    /// A comment with the comments in it (RFC 5322 §3.2.2). Its text is nobody's result.
    ///
    /// Why quotes are counted: they mean nothing in a comment, but servers write the peer's
    /// address there without escapes. `(domain of "a); dmarc=pass (b"@evil.example …)` must not
    /// end where the peer chose: a comment that ends inside quotes is a fault.
    fn comment(&mut self) -> Result<(), AuthResultsFault> {
        let start = self.at;
        let mut depth = 0_usize;
        let mut is_inside_quotes = false;
        loop {
            match self.peek() {
                None => return Err(AuthResultsFault { at: start, what: "the closing `)`" }),
                Some(b'(') if depth == COMMENT_DEPTH_MAX => {
                    return self.expected("comments less deep");
                }
                Some(b'(') => depth += 1,
                Some(b')') if is_inside_quotes => {
                    return self.expected("the closing `\"` of a comment");
                }
                Some(b')') => depth -= 1,
                Some(b'"') => is_inside_quotes = !is_inside_quotes,
                Some(b'\r' | b'\n') => {
                    self.line_end()?;
                    continue;
                }
                Some(_) => {
                    self.text_byte()?;
                    continue;
                }
            }
            self.at += 1;
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// One byte of a comment or quoted string, or the one behind a backslash (RFC 5322 §3.2.1).
    fn text_byte(&mut self) -> Result<u8, AuthResultsFault> {
        self.eat(b'\\');
        match self.peek() {
            Some(byte) if byte == b'\t' || !byte.is_ascii_control() => {
                self.at += 1;
                Ok(byte)
            }
            _ => self.expected("text"),
        }
    }

    /// A fold, or the line end behind the value: CRLF, LF or CR, as many as there are.
    ///
    /// Why: a line that does not begin with white space would be another field to others.
    fn line_end(&mut self) -> Result<(), AuthResultsFault> {
        while matches!(self.peek(), Some(b'\r' | b'\n')) {
            self.at += 1;
        }
        match self.peek() {
            None | Some(b' ' | b'\t') => Ok(()),
            Some(_) => self.expected("white space behind a line end"),
        }
    }

    fn is_at_end_of_result(&self) -> bool {
        matches!(self.peek(), None | Some(b';'))
    }

    fn peek(&self) -> Option<u8> {
        self.value.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    fn rest(&self) -> &'a [u8] {
        self.value.get(self.at..).unwrap_or_default()
    }

    fn expected<T>(&self, what: &'static str) -> Result<T, AuthResultsFault> {
        Err(AuthResultsFault { at: self.at, what })
    }
}

fn is_keyword(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

fn utf8(bytes: Vec<u8>, at: usize) -> Result<String, AuthResultsFault> {
    String::from_utf8(bytes).map_err(|_| AuthResultsFault { at, what: "UTF-8" })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn read(value: &str) -> AuthResults {
        AuthResults::parse(value.as_bytes()).unwrap_or_else(|fault| panic!("{value}\n{fault}"))
    }

    /// `method[/version]=result reason=… ptype.name=value`, joined by ` | `; values in braces.
    fn shown(value: &str) -> String {
        let result = |result: &MethodResult| {
            let mut text = result.method.clone();
            text.extend(result.version.map(|version| format!("/{version}")));
            text.push_str(&format!("={}", result.result));
            text.extend(result.reason.iter().map(|reason| format!(" reason={{{reason}}}")));
            for Property { ptype, name, value } in &result.properties {
                text.push_str(&format!(" {ptype}.{name}={{{value}}}"));
            }
            text
        };
        let read = read(value);
        let results: Vec<String> = read.results.iter().map(result).collect();
        format!("{}: {}", read.authserv_id, results.join(" | "))
    }

    #[test]
    fn the_examples_of_rfc_8601_are_read() {
        for (value, expected) in [
            ("example.org 1; none", "example.org: "),
            (
                "example.com;\r\n    spf=pass smtp.mailfrom=example.net",
                "example.com: spf=pass smtp.mailfrom={example.net}",
            ),
            (
                "example.com;\r\n auth=pass (cram-md5) smtp.auth=sender@example.net;\r\n \
                 spf=pass smtp.mailfrom=example.net",
                "example.com: auth=pass smtp.auth={sender@example.net} \
                 | spf=pass smtp.mailfrom={example.net}",
            ),
            (
                "example.com;\r\n iprev=pass\r\n policy.iprev=192.0.2.200",
                "example.com: iprev=pass policy.iprev={192.0.2.200}",
            ),
            (
                "example.com; dkim=pass reason=\"good signature\"\r\n header.i=@mail.example.net",
                "example.com: dkim=pass reason={good signature} header.i={@mail.example.net}",
            ),
            (
                "foo.example.net (foobar) 1 (baz);\r\n dkim (Because I like it) / 1 (One yay) = \
                 (wait for it) fail\r\n policy (A dot can go here) . (like that) expired\r\n \
                 (this surprised me) = (as I wasn't expecting it) 1362471462",
                "foo.example.net: dkim/1=fail policy.expired={1362471462}",
            ),
        ] {
            assert_eq!(shown(value), expected);
        }
    }

    #[test]
    fn what_real_servers_write_is_read() {
        for (value, expected) in [
            (
                "mx.google.example;\r\n       dkim=pass header.i=@a.example header.s=s1 \
                 header.b=Ab/c+d8=;\r\n       spf=pass (google.example: domain of \
                 bounce+joe=b.example@a.example designates 192.0.2.7 as permitted sender) \
                 smtp.mailfrom=\"bounce+joe=b.example@a.example\";\r\n       dmarc=pass \
                 (p=NONE sp=QUARANTINE dis=NONE) header.from=a.example",
                "mx.google.example: dkim=pass header.i={@a.example} header.s={s1} \
                 header.b={Ab/c+d8=} | spf=pass smtp.mailfrom={bounce+joe=b.example@a.example} \
                 | dmarc=pass header.from={a.example}",
            ),
            (
                "mx.google.example; spf=pass smtp.mailfrom=\"a \\\"b\"@c.example",
                "mx.google.example: spf=pass smtp.mailfrom={\"a \\\"b\"@c.example}",
            ),
            (
                "mx.microsoft.example 1; spf=pass (sender ip is 192.0.2.1) \
                 smtp.mailfrom=a.example;dkim=pass (signature was verified) \
                 header.d=a.example;dmarc=pass action=none header.from=a.example;compauth=pass \
                 reason=100",
                "mx.microsoft.example: spf=pass smtp.mailfrom={a.example} | dkim=pass \
                 header.d={a.example} | dmarc=pass .action={none} header.from={a.example} \
                 | compauth=pass reason={100}",
            ),
            (
                "esa1.example; dkim=pass (signature verified) header.i=@a.example; spf=SoftFail \
                 smtp.mailfrom=Joe@a.example; spf=None smtp.helo=postmaster@h.example; dmarc=pass \
                 (p=none dis=none) d=a.example",
                "esa1.example: dkim=pass header.i={@a.example} | spf=softfail \
                 smtp.mailfrom={Joe@a.example} | spf=none smtp.helo={postmaster@h.example} \
                 | dmarc=pass .d={a.example}",
            ),
            (
                "bimi.example; bimi=pass policy.authority-uri=https://a.example/b?c=d&e=%20 x.y=",
                "bimi.example: bimi=pass policy.authority-uri={https://a.example/b?c=d&e=%20} \
                 x.y={}",
            ),
            (
                "h (amavisd-new); dkim=pass reason=\"pass (just generated; spf=fail)\" \
                 header.d=a.example; x-tls=pass smtp.bits=256/256",
                "h: dkim=pass reason={pass (just generated; spf=fail)} header.d={a.example} \
                 | x-tls=pass smtp.bits={256/256}",
            ),
            (
                "h; iprev=pass (mail.a.example) smtp.remote-ip=2001:db8::1; arc=pass (i=1 spf=pass \
                 spfdomain=a.example dkim=pass (2048-bit; unprotected)) arc.chain=1:a.example:x;",
                "h: iprev=pass smtp.remote-ip={2001:db8::1} | arc=pass \
                 arc.chain={1:a.example:x}",
            ),
            (
                "h; spf=pass (a; b=c) smtp.mailfrom=a.example reason=\"late\" smtp.helo=h.example",
                "h: spf=pass reason={late} smtp.mailfrom={a.example} smtp.helo={h.example}",
            ),
            (
                "h; dmarc=pass(p=NONE)header.from=a.example;;",
                "h: dmarc=pass header.from={a.example}",
            ),
            ("h; spf=none smtp.mailfrom=; dkim=none", "h: spf=none smtp.mailfrom={} | dkim=none"),
            ("h; spf=none smtp.mailfrom=<>", "h: spf=none smtp.mailfrom={<>}"),
            ("h; X_odd=Yes policy.A_b=\"\"", "h: x_odd=yes policy.a_b={}"),
            (
                "h; spf=pass smtp.mailfrom=\r\n\tbounce+joe=b.example@a.example",
                "h: spf=pass smtp.mailfrom={bounce+joe=b.example@a.example}",
            ),
        ] {
            assert_eq!(shown(value), expected);
        }
    }

    #[test]
    fn an_authserv_id_has_one_form() {
        for (value, id) in [
            ("MX.Example.; none", "mx.example"),
            ("\"mx.example\"; none", "mx.example"),
            ("\"a \\\"b\\\" Server\" 1; none", "a \"b\" server"),
            ("BÜCHER.example; none", "xn--bcher-kva.example"),
            ("xn--bcher-kva.example; none", "xn--bcher-kva.example"),
            ("(; spf=pass)mx.example(x)1(y);none(z)", "mx.example"),
            ("host:10025; none;", "host:10025"),
        ] {
            assert_eq!(read(value).authserv_id, id);
        }
        assert_eq!(read("h 1; none").version, Some(1));
        assert_eq!(read("h1; none").version, None);
    }

    #[test]
    fn what_is_readable_only_by_half_is_not_read_at_all() {
        for value in [
            "",
            "h",
            "h;",
            "h 1",
            "; spf=pass",
            "\"\"; spf=pass",
            // Why: Microsoft's form without an authserv-id; "spf" is nobody's name.
            "spf=pass (sender IP is 192.0.2.1) smtp.mailfrom=a.example; dkim=none",
            "i=1; mx.example; spf=pass",
            "h h2; spf=pass",
            "h 2; spf=pass",
            "h 99999999999; spf=pass",
            "h; spf",
            "h; spf=",
            "h; =pass",
            "h; spf=pass; none",
            "h; none; spf=pass",
            "h; none; none",
            "h; none reason=x",
            "h; spf/x=pass",
            "h; spf/99999999999=pass",
            "h; spf=pass smtp.mailfrom",
            "h; spf=pass smtp.=a",
            "h; spf=pass .mailfrom=a",
            "h; spf=pass smtp.a.b=c",
            "h; spf=pass stray",
            "h; spf=pass, dkim=pass",
            "h; spf=pass reason=a reason=b",
            "h; spf=pass smtp.mailfrom=\"a\"b",
            "h; spf=pass smtp.mailfrom=a\"b\"",
            "h; spf=pass smtp.mailfrom=a\\b",
            "h; spf=pass smtp.mailfrom=\"a",
            "h; spf=pass smtp.mailfrom=\"a\\",
            "h; spf=pass smtp.mailfrom=a)",
            "h; spf=pass (a",
            "h; spf=pass (a\\)",
            "h; spf=pass (a\0)",
            "h; spf=pass smtp.mailfrom=a\0",
            "h; spf=pass\nX: y",
            "h; spf=pass (\rX: y)",
            "h; spf=pass smtp.mailfrom=\"a\nb\"",
            "h; spf=fail dmarc=pass header.from=a.example",
            "h; spf=pass smtp.mailfrom= header.from=joe@bank.example",
            "h; spf=pass smtp.mailfrom=(none) d=joe@bank.example",
        ] {
            assert!(AuthResults::parse(value.as_bytes()).is_err(), "{value:?}");
        }
        assert!(AuthResults::parse(b"h; spf=pass smtp.mailfrom=\xff").is_err());
        assert!(AuthResults::parse(b"h; spf=pass (latin-1: \xfc)").is_ok());
    }

    #[test]
    fn a_peer_cannot_leave_the_comment_its_address_stands_in() {
        for local in [
            "a); dmarc=pass header.from=bank.example; spf=pass (b",
            "a\\\"); dmarc=pass header.from=bank.example; spf=pass (\\\"b",
            "a\\\\); dmarc=pass header.from=bank.example; spf=pass (b",
        ] {
            let value = format!("h; spf=pass (domain of \"{local}\"@evil.example) smtp.helo=h");
            assert!(AuthResults::parse(value.as_bytes()).is_err(), "{value}");
        }
        let fault = AuthResults::parse(b"h; spf=pass (\"a)").unwrap_err();
        assert_eq!(fault.to_string(), "byte 15: the closing `\"` of a comment");
    }

    #[test]
    fn everything_has_a_bound() {
        let comment = |depth| format!("h; none {}{}", "(".repeat(depth), ")".repeat(depth));
        let results = |count| format!("h{}", "; a=b".repeat(count));
        let properties = |count| format!("h; a=b{}", " c.d=e".repeat(count));
        let parse = |value: String| AuthResults::parse(value.as_bytes());
        assert!(parse(comment(COMMENT_DEPTH_MAX)).is_ok());
        assert!(parse(comment(COMMENT_DEPTH_MAX + 1)).is_err());
        assert!(parse(results(AUTH_RESULTS_MAX)).is_ok());
        assert!(parse(results(AUTH_RESULTS_MAX + 1)).is_err());
        assert!(parse(properties(AUTH_RESULT_PROPERTIES_MAX)).is_ok());
        assert!(parse(properties(AUTH_RESULT_PROPERTIES_MAX + 1)).is_err());
        assert!(parse(format!("h; none{}", " ".repeat(AUTH_RESULTS_BYTES_MAX))).is_err());
    }

    #[test]
    fn results_are_found_by_method_and_first_version() {
        let read = read("h; dkim=fail; dkim/2=pass; dkim/1=pass header.d=a; spf=pass");
        let words: Vec<&str> = read.of("dkim").map(|result| result.result.as_str()).collect();
        assert_eq!(words, ["fail", "pass"]);
        assert_eq!(read.of("dkim").nth(1).unwrap().property("header", "d"), Some("a"));
        assert_eq!(read.results[0].property("header", "d"), None);
    }

    /// Writes a field in one of the many ways the grammar allows; `chance` picks among them.
    struct Renderer<'a> {
        chance: std::iter::Cycle<std::slice::Iter<'a, u8>>,
        line_end: &'static str,
        text: String,
    }

    impl Renderer<'_> {
        fn pick(&mut self, ways: u8) -> u8 {
            self.chance.next().map_or(0, |byte| byte % ways)
        }

        fn render(mut self, value: &AuthResults) -> String {
            self.cfws(0);
            self.word(&value.authserv_id, false);
            if let Some(version) = value.version {
                self.cfws(1);
                self.text.push_str(&version.to_string());
            }
            if value.results.is_empty() {
                self.glue(";");
                self.keyword("none");
            }
            for result in &value.results {
                self.glue(";");
                self.result(result);
            }
            self.cfws(0);
            for _ in 0..self.pick(3) {
                self.glue(";");
            }
            self.text
        }

        fn result(&mut self, result: &MethodResult) {
            self.keyword(&result.method);
            if let Some(version) = result.version {
                self.glue("/");
                self.text.push_str(&version.to_string());
            }
            self.glue("=");
            self.keyword(&result.result);
            let reason_at = usize::from(self.pick(4));
            for (index, property) in result.properties.iter().enumerate() {
                if index == reason_at {
                    self.reason(result);
                }
                self.cfws(1);
                if !property.ptype.is_empty() {
                    self.keyword(&property.ptype);
                    self.glue(".");
                }
                self.keyword(&property.name);
                self.glue("=");
                self.word(&property.value, true);
            }
            if reason_at >= result.properties.len() {
                self.reason(result);
            }
        }

        fn reason(&mut self, result: &MethodResult) {
            if let Some(reason) = &result.reason {
                self.cfws(1);
                self.keyword("reason");
                self.glue("=");
                self.word(reason, true);
            }
        }

        fn keyword(&mut self, word: &str) {
            let upper = self.pick(3) == 0;
            self.text.push_str(&if upper { word.to_ascii_uppercase() } else { word.to_owned() });
        }

        fn glue(&mut self, mark: &str) {
            self.cfws(0);
            self.text.push_str(mark);
            self.cfws(0);
        }

        /// A token where it can be one, otherwise a quoted string with more or fewer escapes.
        fn word(&mut self, word: &str, is_value: bool) {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+/@:".contains(&byte);
            let plain = !word.is_empty() && word.bytes().all(is_plain);
            if plain && (is_value || !word.contains('@')) && self.pick(2) == 0 {
                return self.text.push_str(word);
            }
            self.text.push('"');
            for c in word.chars() {
                let must = matches!(c, '"' | '\\');
                if must || self.pick(8) == 0 {
                    self.text.push('\\');
                } else if c == ' ' && self.pick(4) == 0 {
                    self.text.push_str(self.line_end);
                }
                self.text.push(c);
            }
            self.text.push('"');
        }

        fn cfws(&mut self, least: u8) {
            for _ in 0..least.max(self.pick(3)) {
                match self.pick(7) {
                    0 => self.text.push_str("(; dmarc=pass header.from=bank.example)"),
                    1 => self.text.push_str("(a(\\(b\\\")c \"; spf=pass\" é)"),
                    2 | 3 => self.text.push_str(&format!("{}\t", self.line_end)),
                    4 => self.text.push_str(&format!("({} )", self.line_end)),
                    _ => self.text.push(' '),
                }
            }
        }
    }

    fn any_value() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z0-9.]{1,12}",
            "[a-z0-9+]{1,6}@[a-z]{1,6}\\.example",
            "[ -~äß€]{0,16}".prop_map(|text| text.trim().to_owned()),
            Just("; dmarc=pass header.from=bank.example; x=\"y\" (".to_owned()),
        ]
    }

    fn any_result() -> impl Strategy<Value = MethodResult> {
        let method = "[a-z][a-z0-9_-]{0,8}[0-9]".prop_map(|word| word.replace("none", "some"));
        let property = ("(smtp|header|policy|x-y|)", "[a-z]{1,4}[0-9]", any_value())
            .prop_map(|(ptype, name, value)| Property { ptype, name, value });
        let version = proptest::option::of(any::<u32>());
        let reason = proptest::option::of(any_value());
        (method, version, "[a-z]{1,9}", reason, vec(property, 0..4)).prop_map(
            |(method, version, result, reason, properties)| MethodResult {
                method,
                version,
                result,
                reason,
                properties,
            },
        )
    }

    fn any_auth_results() -> impl Strategy<Value = AuthResults> {
        let id = "([a-z][a-z0-9-]{0,6}[a-z]\\.){0,3}[a-z]{2,6}";
        let version = proptest::option::of(Just(1));
        (id, version, vec(any_result(), 0..5)).prop_map(|(authserv_id, version, results)| {
            AuthResults { authserv_id, version, results }
        })
    }

    proptest! {
        #[test]
        fn what_was_rendered_is_read_back_whatever_its_form(
            value in any_auth_results(),
            chance in vec(any::<u8>(), 1..64),
        ) {
            for line_end in ["\r\n", "\n", "\r"] {
                let chance = chance.iter().cycle();
                let text = Renderer { chance, line_end, text: String::new() }.render(&value);
                prop_assert_eq!(AuthResults::parse(text.as_bytes()), Ok(value.clone()), "{}", text);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(value in vec(any::<u8>(), 0..200)) {
            let _ = AuthResults::parse(&value);
        }

        #[test]
        fn nearly_right_text_never_panics(
            parts in vec(
                prop_oneof![
                    Just("h;"), Just("spf"), Just("="), Just("pass"), Just(" "), Just("smtp."),
                    Just("mailfrom"), Just("\""), Just("("), Just(")"), Just("\\"), Just(";"),
                    Just("\r\n "), Just("/1"), Just("none"), Just("@a.example"), Just("é"),
                ],
                0..40,
            ),
        ) {
            let _ = AuthResults::parse(parts.concat().as_bytes());
        }

        #[test]
        fn no_text_of_a_peer_surfaces_from_a_comment(text in "[ -~]{0,40}") {
            let escaped = text.replace('\\', "\\\\").replace('(', "\\(").replace(')', "\\)");
            let value = format!("h; spf=none ({escaped}; dmarc=pass header.from=bank.example)");
            if let Ok(read) = AuthResults::parse(value.as_bytes()) {
                prop_assert_eq!(read.results.len(), 1);
                prop_assert!(read.results[0].properties.is_empty());
            } else {
                prop_assert!(text.matches('"').count() > 0, "{}", value);
            }
        }
    }
}
