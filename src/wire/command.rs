//! SMTP commands: a line in, a `Command` out.
//!
//! Takes: a command line without CRLF, as bytes. Gives: `Command`; paths and parameters keep the
//! text they were written in. Errors: `CommandFault`, each with the codes to answer.
//! Bounds: `limits::PARAMETERS_MAX`, `limits::ADDRESS_BYTES_MAX`.
//! Standards: RFC 5321 §4.1.1 and §4.1.2, RFC 2033 §4.1, RFC 3207 §4, RFC 6531 §3.3, Postfix's
//! XFORWARD.

use crate::mail::address::{Address, ForwardPath, ReversePath};
use crate::mail::envelope::{MailFrom, Parameter, Parameters, Recipient, XforwardAttribute};
use crate::mail::limits::PARAMETERS_MAX;

/// One command of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// HELO with its name.
    Helo(String),
    /// EHLO with its name.
    Ehlo(String),
    /// LHLO with its name (RFC 2033 §4.1).
    Lhlo(String),
    /// MAIL FROM.
    Mail(MailFrom),
    /// RCPT TO.
    Rcpt(Recipient),
    /// DATA.
    Data,
    /// RSET.
    Rset,
    /// NOOP, with or without words.
    Noop,
    /// VRFY or EXPN.
    Vrfy,
    /// HELP.
    Help,
    /// QUIT.
    Quit,
    /// STARTTLS (RFC 3207 §4).
    StartTls,
    /// XFORWARD with its attributes, at least one.
    Xforward(Vec<XforwardAttribute>),
    /// A command of RFC 5321 or an extension that is not offered; its verb.
    NotImplemented(&'static str),
}

/// Why a line is no command; the peer's fault, all of them permanent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandFault {
    /// No verb we know.
    #[error("unknown command")]
    PeerVerb,
    /// Not UTF-8.
    #[error("a command must be UTF-8")]
    PeerEncoding,
    /// HELO without a name, DATA with one…
    #[error("wrong number of arguments")]
    PeerArguments,
    /// No path, or one that is no address.
    #[error("bad address syntax: write <local@domain>")]
    PeerPath,
    /// RCPT TO:<>.
    #[error("a recipient cannot be null")]
    PeerNullRecipient,
    /// A parameter that is none, or stands twice.
    #[error("bad parameter syntax")]
    PeerParameter,
    /// More than `limits::PARAMETERS_MAX`.
    #[error("too many parameters")]
    BoundParameters,
}

impl CommandFault {
    /// Reply code and enhanced status (RFC 5321 §4.2.3, RFC 3463 §3.6).
    pub fn codes(self) -> (u16, &'static str) {
        match self {
            CommandFault::PeerVerb => (500, "5.5.2"),
            CommandFault::PeerEncoding => (500, "5.5.2"),
            CommandFault::PeerPath | CommandFault::PeerNullRecipient => (501, "5.1.3"),
            CommandFault::PeerArguments
            | CommandFault::PeerParameter
            | CommandFault::BoundParameters => (501, "5.5.4"),
        }
    }
}

/// Verbs of RFC 5321 and its extensions that are known and not offered.
const NOT_IMPLEMENTED: &[&str] =
    &["BDAT", "AUTH", "ETRN", "TURN", "ATRN", "XCLIENT", "SEND", "SOML", "SAML"];

impl Command {
    /// Reads a line without its CRLF.
    pub fn parse(line: &[u8]) -> Result<Command, CommandFault> {
        let line = std::str::from_utf8(line).map_err(|_| CommandFault::PeerEncoding)?;
        if line.contains(|c: char| c.is_control() && c != '\t') {
            return Err(CommandFault::PeerVerb);
        }
        let line = line.trim_end_matches([' ', '\t']);
        let (verb, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let rest = rest.trim_start_matches([' ', '\t']);
        let without = |command: Command| match rest.is_empty() {
            true => Ok(command),
            false => Err(CommandFault::PeerArguments),
        };
        match verb.to_ascii_uppercase().as_str() {
            "HELO" => Ok(Command::Helo(name(rest)?)),
            "EHLO" => Ok(Command::Ehlo(name(rest)?)),
            "LHLO" => Ok(Command::Lhlo(name(rest)?)),
            "MAIL" => mail(rest),
            "RCPT" => rcpt(rest),
            "DATA" => without(Command::Data),
            "RSET" => without(Command::Rset),
            "QUIT" => without(Command::Quit),
            "STARTTLS" => without(Command::StartTls),
            "NOOP" => Ok(Command::Noop),
            "HELP" => Ok(Command::Help),
            "VRFY" | "EXPN" if rest.is_empty() => Err(CommandFault::PeerArguments),
            "VRFY" | "EXPN" => Ok(Command::Vrfy),
            "XFORWARD" => xforward(rest),
            verb => match NOT_IMPLEMENTED.iter().find(|known| **known == verb) {
                Some(known) => Ok(Command::NotImplemented(known)),
                None => Err(CommandFault::PeerVerb),
            },
        }
    }
}

/// Why: what a client calls itself is only noted, so anything that is one word will do.
fn name(rest: &str) -> Result<String, CommandFault> {
    let right = !rest.is_empty() && rest.len() <= 255 && !rest.contains([' ', '\t']);
    right.then(|| rest.to_owned()).ok_or(CommandFault::PeerArguments)
}

fn mail(rest: &str) -> Result<Command, CommandFault> {
    let (path_text, rest) = path_after(rest, "FROM:")?;
    let path = match inside(path_text) {
        "" => ReversePath::Null,
        address => ReversePath::Address(reverse(address)?),
    };
    let parameters = parameters(rest)?;
    Ok(Command::Mail(MailFrom { path, path_text: path_text.to_owned(), parameters }))
}

/// Why odd ones too: whom a failure is reported to is the next hop's business, and servers behind
/// us have sent `<joe>` and `<a@b..example>` for decades. Not so a recipient: it is what is judged.
fn reverse(address: &str) -> Result<Address, CommandFault> {
    Address::parse(address).or_else(|| Address::odd(address)).ok_or(CommandFault::PeerPath)
}

fn rcpt(rest: &str) -> Result<Command, CommandFault> {
    let (path_text, rest) = path_after(rest, "TO:")?;
    let path = match inside(path_text) {
        "" => return Err(CommandFault::PeerNullRecipient),
        // RFC 5321 §4.1.1.3: the only address without a domain.
        local if local.eq_ignore_ascii_case("postmaster") => {
            ForwardPath::Postmaster(local.to_owned())
        }
        address => ForwardPath::Address(Address::parse(address).ok_or(CommandFault::PeerPath)?),
    };
    let parameters = parameters(rest)?;
    Ok(Command::Rcpt(Recipient { path, path_text: path_text.to_owned(), parameters }))
}

/// `FROM:<path> parameters` → the path with its brackets, and what follows it.
///
/// Why: a space behind the colon is no RFC 5321 syntax, but common, and it means nothing else.
fn path_after<'l>(rest: &'l str, word: &str) -> Result<(&'l str, &'l str), CommandFault> {
    let begins = rest.get(..word.len()).is_some_and(|found| found.eq_ignore_ascii_case(word));
    let rest = match begins {
        true => rest.get(word.len()..).unwrap_or_default().trim_start_matches(' '),
        false => return Err(CommandFault::PeerArguments),
    };
    let end = closing_bracket(rest).ok_or(CommandFault::PeerPath)?;
    let (path, rest) = rest.split_at_checked(end + 1).ok_or(CommandFault::PeerPath)?;
    match rest.is_empty() || rest.starts_with([' ', '\t']) {
        true => Ok((path, rest)),
        false => Err(CommandFault::PeerPath),
    }
}

/// The `>` that closes a path; one inside a quoted local part does not.
fn closing_bracket(text: &str) -> Option<usize> {
    if !text.starts_with('<') {
        return None;
    }
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '>' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

fn inside(path_text: &str) -> &str {
    path_text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).unwrap_or_default()
}

fn parameters(rest: &str) -> Result<Parameters, CommandFault> {
    let mut parameters: Vec<Parameter> = Vec::new();
    for text in rest.split([' ', '\t']).filter(|text| !text.is_empty()) {
        if parameters.len() == PARAMETERS_MAX {
            return Err(CommandFault::BoundParameters);
        }
        let keyword = text.split('=').next().unwrap_or_default().to_ascii_uppercase();
        let mut bytes = keyword.bytes();
        let right = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric())
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let twice = parameters.iter().any(|given| given.keyword == keyword);
        if !right || twice || text.ends_with('=') || !is_known_value_right(&keyword, text) {
            return Err(CommandFault::PeerParameter);
        }
        parameters.push(Parameter { keyword, text: text.to_owned() });
    }
    Ok(Parameters::new(parameters))
}

/// Whether the value of a parameter we promise ourselves has its form (RFC 3461 §4, RFC 1870 §5).
///
/// Why: with the null reverse-path we answer MAIL and RCPT before any next hop has seen them.
fn is_known_value_right(keyword: &str, text: &str) -> bool {
    let value = text.split_once('=').map_or("", |(_, value)| value);
    let one_of = |words: &[&str]| words.iter().any(|word| value.eq_ignore_ascii_case(word));
    match keyword {
        "SIZE" => value.len() <= 20 && value.parse::<u64>().is_ok(),
        "BODY" => one_of(&["7BIT", "8BITMIME", "BINARYMIME"]),
        "SMTPUTF8" => text.len() == keyword.len(),
        "RET" => one_of(&["FULL", "HDRS"]),
        "ENVID" => value.len() <= 100 && is_xtext(value),
        "NOTIFY" => is_notify(value),
        "ORCPT" => value.split_once(';').is_some_and(|(kind, address)| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
            // RFC 6533 §3: utf-8 addresses have forms of their own.
            let utf8 = kind.eq_ignore_ascii_case("utf-8");
            !kind.is_empty() && kind.bytes().all(plain) && (utf8 || is_xtext(address))
        }),
        _ => true,
    }
}

/// RFC 3461 §4.1: NEVER alone, or any of the other three.
fn is_notify(value: &str) -> bool {
    let known = |word: &str| {
        ["SUCCESS", "FAILURE", "DELAY"].iter().any(|known| word.eq_ignore_ascii_case(known))
    };
    value.eq_ignore_ascii_case("NEVER") || value.split(',').all(known)
}

/// RFC 3461 §4: printable ASCII without `+` and `=`, or `+` and two upper-case hexadecimal digits.
fn is_xtext(value: &str) -> bool {
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        let right = match byte {
            b'+' => {
                let hex = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_hexdigit());
                hex(bytes.next()) && hex(bytes.next())
            }
            b'=' => false,
            byte => byte.is_ascii_graphic(),
        };
        if !right {
            return false;
        }
    }
    true
}

fn xforward(rest: &str) -> Result<Command, CommandFault> {
    let attribute = |word: &str| {
        let (name, value) = word.split_once('=')?;
        let right = !name.is_empty() && value.len() <= 255 && value.bytes().all(|b| b > b' ');
        right
            .then(|| XforwardAttribute { name: name.to_ascii_uppercase(), value: value.to_owned() })
    };
    let words = rest.split([' ', '\t']).filter(|word| !word.is_empty());
    let attributes: Option<Vec<XforwardAttribute>> = words.map(attribute).collect();
    match attributes {
        Some(attributes) if !attributes.is_empty() => Ok(Command::Xforward(attributes)),
        _ => Err(CommandFault::PeerParameter),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(line: &str) -> Result<Command, CommandFault> {
        Command::parse(line.as_bytes())
    }

    #[test]
    fn paths_and_parameters_keep_their_text() {
        for (path, rest) in [
            ("<>", ""),
            ("<joe@example.org>", " SIZE=100 BODY=8BITMIME"),
            ("<\"a b\"@c.example>", " RET=HDRS ENVID=a+2Bb"),
            ("<\"a>b\\\"c\"@c.example>", ""),
            ("<@hop.example:joe@c.example>", " XFOO=1 FLAG"),
            ("<joe@[IPv6:2001:db8::1]>", ""),
            ("<jürgen@bücher.example>", " SMTPUTF8"),
            ("<joe>", ""),
            ("<a..b@c.example>", " SIZE=1"),
            ("<joe@c..example>", ""),
            ("<c.example!joe>", ""),
        ] {
            let Ok(Command::Mail(mail)) = parse(&format!("mail from:{path}{rest}")) else {
                panic!("{path} is a reverse-path");
            };
            assert_eq!(mail.path_text, path);
            assert_eq!(mail.parameters.to_send(0), rest);
        }
        let line = "RCPT TO: <Postmaster> NOTIFY=SUCCESS,delay ORCPT=rfc822;a+40b@x";
        let Ok(Command::Rcpt(recipient)) = parse(line) else { panic!("a recipient") };
        assert_eq!(recipient.path, ForwardPath::Postmaster("Postmaster".into()));
        assert_eq!(recipient.parameters.value("NOTIFY"), Some("SUCCESS,delay"));
    }

    #[test]
    fn faults_say_what_is_wrong() {
        for (line, fault) in [
            ("", CommandFault::PeerVerb),
            ("FROB", CommandFault::PeerVerb),
            ("NO\tOP\u{7}", CommandFault::PeerVerb),
            ("EHLO", CommandFault::PeerArguments),
            ("HELO two words", CommandFault::PeerArguments),
            ("DATA now", CommandFault::PeerArguments),
            ("STARTTLS now", CommandFault::PeerArguments),
            ("VRFY", CommandFault::PeerArguments),
            ("MAIL", CommandFault::PeerArguments),
            ("MAIL FROM", CommandFault::PeerArguments),
            ("MAIL FROM:joe@example.org", CommandFault::PeerPath),
            ("MAIL FROM:<joe@example.org", CommandFault::PeerPath),
            ("MAIL FROM:<jo e>", CommandFault::PeerPath),
            ("MAIL FROM:<joe\u{7f}>", CommandFault::PeerVerb),
            ("MAIL FROM:<<joe>>", CommandFault::PeerPath),
            ("MAIL FROM:<jo\u{2028}e>", CommandFault::PeerPath),
            ("RCPT TO:<joe>", CommandFault::PeerPath),
            ("RCPT TO:<joe@c..example>", CommandFault::PeerPath),
            ("MAIL FROM:<a@b.example>SIZE=1", CommandFault::PeerPath),
            ("RCPT TO:<>", CommandFault::PeerNullRecipient),
            ("MAIL FROM:<> SIZE=", CommandFault::PeerParameter),
            ("MAIL FROM:<> SIZE=x", CommandFault::PeerParameter),
            ("MAIL FROM:<> SIZE=1 size=2", CommandFault::PeerParameter),
            ("MAIL FROM:<> =1", CommandFault::PeerParameter),
            ("MAIL FROM:<> ENVID=a+2", CommandFault::PeerParameter),
            ("RCPT TO:<a@b.example> NOTIFY=NEVER,DELAY", CommandFault::PeerParameter),
            ("RCPT TO:<a@b.example> ORCPT=a@b.example", CommandFault::PeerParameter),
            ("XFORWARD", CommandFault::PeerParameter),
            ("XFORWARD ADDR", CommandFault::PeerParameter),
        ] {
            assert_eq!(parse(line), Err(fault), "{line}");
        }
        assert_eq!(Command::parse(b"NOOP \xff"), Err(CommandFault::PeerEncoding));
        let many = (0..=PARAMETERS_MAX).map(|n| format!(" X{n}")).collect::<String>();
        assert_eq!(parse(&format!("MAIL FROM:<>{many}")), Err(CommandFault::BoundParameters));
    }

    #[test]
    fn known_commands_that_are_not_offered_are_named() {
        assert_eq!(parse("BDAT 10 LAST"), Ok(Command::NotImplemented("BDAT")));
        assert_eq!(parse("auth PLAIN AA=="), Ok(Command::NotImplemented("AUTH")));
    }

    proptest! {
        #[test]
        fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Command::parse(&line);
        }

        /// Goal: what is read is sent on byte for byte.
        #[test]
        fn a_command_survives_its_way_through(
            local in "[a-z0-9.!#$%&'*+/=?^_`{|}~-]{1,20}",
            domain in "[a-z0-9]{1,10}(\\.[a-z]{2,5}){1,3}",
            notify in prop_oneof![Just("NEVER"), Just("SUCCESS,FAILURE"), Just("delay")],
        ) {
            let line = format!("RCPT TO:<{local}@{domain}> NOTIFY={notify}");
            let Ok(Command::Rcpt(recipient)) = parse(&line) else {
                return Err(TestCaseError::fail(line));
            };
            prop_assert_eq!(crate::wire::smtp_client::rcpt_command(&recipient), format!("{line}\r\n"));
        }
    }
}
