//! The envelope: who speaks to us, from whom, to whom, and what each command asked for.
//!
//! Takes: commands read by `wire::smtp_server`. Gives: `Envelope`. The text of paths and
//! parameters is kept byte for byte, because that is what the next hop gets; the typed view
//! beside it is for us. Bounds: `limits::RECIPIENTS_MAX`, `limits::PARAMETERS_MAX`.
//! Standards: RFC 5321 §3.3, RFC 3461 §4, RFC 1870, RFC 6152, RFC 6531, Postfix's XFORWARD.

use std::net::IpAddr;

use crate::mail::address::{ForwardPath, ReversePath};

/// What TLS was agreed on with a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secured {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: String,
    /// The cipher suite, by its name in RFC 8446 §B.4 or RFC 5289.
    pub cipher: String,
}

/// Who speaks to us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// The peer's IP address; `None` on a unix socket.
    pub ip: Option<IpAddr>,
    /// What it called itself in HELO, EHLO or LHLO.
    pub helo: String,
    /// What it said of its own client (XFORWARD), in the order it was said.
    pub xforward: Vec<XforwardAttribute>,
    /// At which of our listeners it spoke: 0 is the first of `outbound.listen`.
    pub listener: usize,
    /// The TLS it speaks over; `None` in the clear.
    pub tls: Option<Secured>,
}

impl Client {
    /// The value of an XFORWARD attribute, encoded as it came; `None` when it was not given.
    pub fn xforward_value(&self, name: &str) -> Option<&str> {
        let given = self.xforward.iter().rev().find(|attribute| attribute.name == name);
        given.map(|attribute| attribute.value.as_str())
    }
}

/// One `NAME=value` of XFORWARD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XforwardAttribute {
    /// Upper case: NAME ADDR PORT PROTO HELO IDENT SOURCE.
    pub name: String,
    /// xtext as it came (RFC 3461 §4), `[UNAVAILABLE]` included.
    pub value: String,
}

/// One transaction's envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Who gave it to us.
    pub client: Client,
    /// MAIL.
    pub mail: MailFrom,
    /// RCPT, in the order of the commands; only those that were accepted.
    pub recipients: Vec<Recipient>,
}

impl Envelope {
    /// The reverse-path.
    pub fn reverse_path(&self) -> &ReversePath {
        &self.mail.path
    }
}

/// A MAIL command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailFrom {
    /// The path, typed.
    pub path: ReversePath,
    /// The path as it was written, with its angle brackets.
    pub path_text: String,
    /// What follows it.
    pub parameters: Parameters,
}

/// A RCPT command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The path, typed.
    pub path: ForwardPath,
    /// The path as it was written, with its angle brackets.
    pub path_text: String,
    /// What follows it.
    pub parameters: Parameters,
}

/// The ESMTP parameters of MAIL or RCPT (RFC 5321 §4.1.2), in their order, byte for byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters(Vec<Parameter>);

/// One `KEYWORD` or `KEYWORD=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// The keyword in upper case.
    pub keyword: String,
    /// The whole parameter as it was written.
    pub text: String,
}

impl Parameter {
    /// What follows the `=`, as it was written; `None` without one.
    pub fn value(&self) -> Option<&str> {
        self.text.split_once('=').map(|(_, value)| value)
    }
}

/// xtext with its `+XX` decoded (RFC 3461 §4); what is none stays as it is.
pub fn xtext_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..2).filter(|_| *first == b'+');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = byte.and_then(|_| behind.get(2..)).unwrap_or(behind);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Parameters {
    /// The parameters in their order.
    pub fn new(parameters: Vec<Parameter>) -> Parameters {
        Parameters(parameters)
    }

    /// Each parameter in its order.
    pub fn iter(&self) -> impl Iterator<Item = &Parameter> {
        self.0.iter()
    }

    /// The value of the first parameter of this keyword (upper case), as it was written.
    pub fn value(&self, keyword: &str) -> Option<&str> {
        self.0.iter().find(|parameter| parameter.keyword == keyword).and_then(Parameter::value)
    }

    /// Whether the keyword (upper case) is there, with or without a value.
    pub fn has(&self, keyword: &str) -> bool {
        self.0.iter().any(|parameter| parameter.keyword == keyword)
    }

    /// The size in bytes that MAIL declared (RFC 1870 §6).
    pub fn size_bytes(&self) -> Option<u64> {
        self.value("SIZE").and_then(|value| value.parse().ok())
    }

    /// ENVID as it was written, xtext (RFC 3461 §4.4).
    pub fn envid(&self) -> Option<&str> {
        self.value("ENVID")
    }

    /// The parameters as they are sent on: each with a space before it.
    ///
    /// SIZE grows by `added_bytes`, because that many bytes of ours go on top of the message; all
    /// others stand as they came.
    pub fn to_send(&self, added_bytes: u64) -> String {
        let mut text = String::new();
        for parameter in &self.0 {
            text.push(' ');
            match parameter.keyword.as_str() {
                "SIZE" => match self.size_bytes() {
                    Some(size) => {
                        text.push_str(&format!("SIZE={}", size.saturating_add(added_bytes)))
                    }
                    None => text.push_str(&parameter.text),
                },
                _ => text.push_str(&parameter.text),
            }
        }
        text
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xtext_is_decoded_and_what_is_none_stays() {
        for (text, decoded) in [("a+2Bb+3D", "a+b="), ("a+", "a+"), ("a+zz+4", "a+zz+4"), ("", "")]
        {
            assert_eq!(xtext_decoded(text), decoded);
        }
    }

    #[test]
    fn parameters_go_on_as_they_came_but_for_the_size() {
        let parameter = |text: &str| {
            let keyword = text.split('=').next().unwrap().to_ascii_uppercase();
            Parameter { keyword, text: text.to_owned() }
        };
        let parameters = Parameters::new(
            ["size=100", "RET=HDRS", "ENVID=a+2Bb", "body=8BITMIME"].map(parameter).to_vec(),
        );
        assert_eq!(parameters.to_send(20), " SIZE=120 RET=HDRS ENVID=a+2Bb body=8BITMIME");
        assert_eq!(parameters.envid(), Some("a+2Bb"));
        assert_eq!(parameters.size_bytes(), Some(100));
        assert_eq!(Parameters::default().to_send(20), "");
    }
}
