//! How a session with a next hop begins, without sockets: greeting, EHLO, STARTTLS, EHLO again,
//! AUTH.
//!
//! Takes: replies in their order, and word that the handshake was made. Gives: `Next`, what the
//! driver must do. Errors: `OpeningFault`; the session is of no use then.
//! Why its own: what is allowed when (a password before TLS, a keyword from before it) is decided
//! here and nowhere else, and can be tested as a function.
//! Standards: RFC 5321 §3.1 and §3.2, RFC 3207 §4, RFC 4954 §4, RFC 4616 §2, RFC 8689 §4.2.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::mail::reply::Reply;
use crate::wire::endpoint::Protocol;
use crate::wire::keywords::Keywords;
use crate::wire::secure::{Channel, TlsUse};
use crate::wire::smtp_client::hello_command;

/// A name and a password for a next hop.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    user: String,
    password: String,
}

impl Login {
    /// Both as they are; without NUL, which separates them in PLAIN (RFC 4616 §2).
    pub fn new(user: &str, password: &str) -> Option<Login> {
        let right = |text: &str| !text.is_empty() && !text.contains(['\0', '\r', '\n']);
        let login = Login { user: user.to_owned(), password: password.to_owned() };
        (right(user) && right(password)).then_some(login)
    }
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login(…)")
    }
}

/// What is wanted of a session.
#[derive(Clone, Debug)]
pub struct Wish {
    /// SMTP or LMTP.
    pub protocol: Protocol,
    /// What we call ourselves.
    pub hostname: String,
    /// Whether TLS is to be there.
    pub tls: TlsUse,
    /// Who we are, where the next hop asks.
    pub login: Option<Login>,
    /// Whether that may be said in the clear: to this host, or because the settings say so.
    pub login_in_clear: bool,
}

/// What the driver does next.
//
// Why no Debug: the line of AUTH would stand in it.
pub enum Next {
    /// Send this line; give the reply to `heard`. The stage is for faults.
    Say(String, &'static str),
    /// Make the handshake, if the peer has said nothing more in the clear; then say `secured`.
    Secure,
    /// The session stands; what it offers.
    Ready(Keywords),
}

/// Why a next hop is of no use; always temporary, and for the operator to look at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpeningFault {
    /// It answered, and does not want to talk.
    #[error("{stage}: it says {} {}", .reply.code(), .reply.text())]
    Unwilling {
        /// What was being done.
        stage: &'static str,
        /// Its words.
        reply: Reply,
    },
    /// TLS is required.
    #[error(
        "it offers no STARTTLS, and the settings require TLS: mend its TLS, or see docs/tls.md"
    )]
    NoStarttls,
    /// It takes none of PLAIN and LOGIN.
    #[error("it offers neither AUTH PLAIN nor AUTH LOGIN: take it out of `outbound.auth_file`")]
    NoAuth,
    /// A password would go over the wire for everybody to read.
    #[error(
        "there is no TLS, and a password is not said in the clear: see `outbound.auth_in_clear`"
    )]
    AuthInClear,
    /// It does not take name or password. Why not its words: it may repeat what it was told.
    #[error("AUTH: it says {code} {enhanced}: look at name and password in `outbound.auth_file`")]
    AuthRefused {
        /// Its code.
        code: u16,
        /// Its enhanced status; empty without one.
        enhanced: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    /// The handshake is being made.
    Securing,
    AuthPlain,
    AuthLogin,
    AuthUser,
    AuthPassword,
    Over,
}

/// The beginning of one session.
#[derive(Debug)]
pub struct Opening<'w> {
    wish: &'w Wish,
    channel: Channel,
    state: State,
    keywords: Keywords,
}

impl<'w> Opening<'w> {
    /// Nothing was said yet; `channel` is what the connection has from its beginning.
    pub fn new(wish: &'w Wish, channel: Channel) -> Opening<'w> {
        Opening { wish, channel, state: State::Greeting, keywords: Keywords::default() }
    }

    /// What the connection has now.
    pub fn channel(&self) -> Channel {
        self.channel
    }

    /// What is being waited for.
    pub fn stage(&self) -> &'static str {
        match self.state {
            State::Greeting => "greeting",
            State::Ehlo => "EHLO",
            State::Helo => "HELO",
            State::StartTls | State::Securing => "STARTTLS",
            State::AuthPlain | State::AuthLogin | State::AuthUser | State::AuthPassword => "AUTH",
            State::Over => "opening",
        }
    }

    /// The handshake was made: what was said before counts no more (RFC 3207 §4.2).
    pub fn secured(&mut self, channel: Channel) -> Next {
        (self.channel, self.keywords) = (channel, Keywords::default());
        self.hello()
    }

    /// The next reply.
    pub fn heard(&mut self, reply: Reply) -> Result<Next, OpeningFault> {
        match self.state {
            State::Greeting if reply.is_positive() => Ok(self.hello()),
            // RFC 5321 §3.2: a server that does not know EHLO is asked with HELO.
            State::Ehlo
                if self.wish.protocol == Protocol::Smtp && (500..=504).contains(&reply.code()) =>
            {
                self.state = State::Helo;
                Ok(Next::Say(format!("HELO {}\r\n", self.wish.hostname), "HELO"))
            }
            State::Ehlo | State::Helo if reply.is_positive() => {
                self.keywords = Keywords::from_reply(&reply);
                self.greeted()
            }
            State::StartTls if reply.code() == 220 => {
                self.state = State::Securing;
                Ok(Next::Secure)
            }
            // RFC 3207 §4.1: after a refusal the conversation goes on as it was.
            State::StartTls if self.wish.tls != TlsUse::Required => self.identified(),
            State::AuthPlain | State::AuthPassword if reply.code() == 235 => Ok(self.ready()),
            State::AuthLogin if reply.code() == 334 => Ok(self.say_secret(State::AuthUser)),
            State::AuthUser if reply.code() == 334 => Ok(self.say_secret(State::AuthPassword)),
            State::AuthPlain | State::AuthLogin | State::AuthUser | State::AuthPassword => {
                Err(OpeningFault::AuthRefused {
                    code: reply.code(),
                    enhanced: reply.enhanced().unwrap_or_default(),
                })
            }
            _ => Err(OpeningFault::Unwilling { stage: self.stage(), reply }),
        }
    }

    fn hello(&mut self) -> Next {
        self.state = State::Ehlo;
        Next::Say(hello_command(self.wish.protocol, &self.wish.hostname), "EHLO")
    }

    fn greeted(&mut self) -> Result<Next, OpeningFault> {
        let offered = self.keywords.has("STARTTLS");
        match self.wish.tls {
            _ if self.channel.is_encrypted() => self.identified(),
            TlsUse::Opportunistic | TlsUse::Required if offered => {
                self.state = State::StartTls;
                Ok(Next::Say("STARTTLS\r\n".to_owned(), "STARTTLS"))
            }
            TlsUse::Required => Err(OpeningFault::NoStarttls),
            TlsUse::Off | TlsUse::Opportunistic => self.identified(),
        }
    }

    /// AUTH, if the settings know a name; PLAIN before LOGIN, which is obsolete but all that some
    /// servers have.
    fn identified(&mut self) -> Result<Next, OpeningFault> {
        let Some(login) = &self.wish.login else { return Ok(self.ready()) };
        if !self.channel.is_encrypted() && !self.wish.login_in_clear {
            return Err(OpeningFault::AuthInClear);
        }
        let offered = self.keywords.value("AUTH").unwrap_or_default();
        let takes = |name: &str| offered.split(' ').any(|word| word.eq_ignore_ascii_case(name));
        let line = if takes("PLAIN") {
            self.state = State::AuthPlain;
            let plain = BASE64_STANDARD.encode(format!("\0{}\0{}", login.user, login.password));
            format!("AUTH PLAIN {plain}\r\n")
        } else if takes("LOGIN") {
            self.state = State::AuthLogin;
            "AUTH LOGIN\r\n".to_owned()
        } else {
            return Err(OpeningFault::NoAuth);
        };
        Ok(Next::Say(line, "AUTH"))
    }

    fn say_secret(&mut self, next: State) -> Next {
        self.state = next;
        let secret = self.wish.login.as_ref().map(|login| match next {
            State::AuthUser => &login.user,
            _ => &login.password,
        });
        let secret = BASE64_STANDARD.encode(secret.map(String::as_str).unwrap_or_default());
        Next::Say(format!("{secret}\r\n"), "AUTH")
    }

    /// RFC 8689 §4.2.1: REQUIRETLS counts only of a server that showed who it is.
    fn ready(&mut self) -> Next {
        self.state = State::Over;
        let keywords = std::mem::take(&mut self.keywords);
        Next::Ready(match self.channel {
            Channel::Verified => keywords,
            Channel::Clear | Channel::Encrypted => keywords.without("REQUIRETLS"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(tls: TlsUse, login: Option<Login>) -> Wish {
        let hostname = "guard.example".to_owned();
        Wish { protocol: Protocol::Smtp, hostname, tls, login, login_in_clear: false }
    }

    fn reply(text: &str) -> Reply {
        let lines: Vec<&str> = text.split('|').collect();
        Reply::lines(
            lines[0][..3].parse().unwrap(),
            &lines.iter().map(|l| &l[4..]).collect::<Vec<_>>(),
        )
    }

    /// What is said to each of these replies; `*` is the handshake, `+…` what is offered, `!…` the
    /// fault.
    fn play(wish: &Wish, channel: Channel, after: Channel, replies: &[&str]) -> Vec<String> {
        let mut opening = Opening::new(wish, channel);
        let mut said = Vec::new();
        for text in replies {
            let mut next = opening.heard(reply(text));
            if let Ok(Next::Secure) = next {
                said.push("*".to_owned());
                next = Ok(opening.secured(after));
            }
            said.push(match next {
                Ok(Next::Say(line, _)) => line.trim_end().to_owned(),
                Ok(Next::Secure) => "twice".to_owned(),
                Ok(Next::Ready(keywords)) => {
                    format!("+{}", keywords.lines().collect::<Vec<_>>().join(","))
                }
                Err(fault) => format!("!{fault}"),
            });
        }
        said
    }

    const HI: &str = "220 mx.example";
    const PLAIN: &str = "250 mx.example|250 SIZE 10";
    const WITH: &str = "250 mx.example|250 STARTTLS|250 REQUIRETLS|250 DSN";
    const INSIDE: &str = "250 mx.example|250 REQUIRETLS|250 AUTH LOGIN PLAIN";
    const EHLO: &str = "EHLO guard.example";

    #[test]
    fn what_was_offered_before_the_handshake_is_forgotten() {
        for (after, offered) in [
            (Channel::Encrypted, "+AUTH LOGIN PLAIN"),
            (Channel::Verified, "+AUTH LOGIN PLAIN,REQUIRETLS"),
        ] {
            for tls in [TlsUse::Opportunistic, TlsUse::Required] {
                let said =
                    play(&wish(tls, None), Channel::Clear, after, &[HI, WITH, "220 go", INSIDE]);
                assert_eq!(said, [EHLO, "STARTTLS", "*", EHLO, offered]);
            }
        }
    }

    #[test]
    fn without_starttls_only_what_requires_it_ends() {
        let said = |tls, replies: &[&str]| {
            play(&wish(tls, None), Channel::Clear, Channel::Verified, replies).pop().unwrap()
        };
        assert_eq!(said(TlsUse::Off, &[HI, WITH]), "+DSN,STARTTLS");
        assert_eq!(said(TlsUse::Opportunistic, &[HI, PLAIN]), "+SIZE 10");
        assert_eq!(said(TlsUse::Opportunistic, &[HI, WITH, "454 later"]), "+DSN,STARTTLS");
        assert!(said(TlsUse::Required, &[HI, PLAIN]).starts_with("!it offers no STARTTLS"));
        assert!(
            said(TlsUse::Required, &[HI, "502 what", "250 hello"]).starts_with("!it offers no")
        );
        assert_eq!(
            said(TlsUse::Required, &[HI, WITH, "454 later"]),
            "!STARTTLS: it says 454 later"
        );
        assert_eq!(said(TlsUse::Off, &["554 no"]), "!greeting: it says 554 no");
        assert_eq!(said(TlsUse::Off, &[HI, "554 no"]), "!EHLO: it says 554 no");
    }

    #[test]
    fn a_connection_that_is_encrypted_needs_no_starttls() {
        let wish = wish(TlsUse::Required, None);
        let said = play(&wish, Channel::Verified, Channel::Verified, &[HI, WITH]);
        assert_eq!(said, [EHLO, "+DSN,REQUIRETLS,STARTTLS"]);
    }

    #[test]
    fn a_password_is_said_within_tls_only() {
        let login = Login::new("guard", "pa ss").unwrap();
        let mut wish = wish(TlsUse::Opportunistic, Some(login));
        let clear = "250 mx.example|250 AUTH PLAIN";
        let said = play(&wish, Channel::Clear, Channel::Encrypted, &[HI, clear]);
        assert_eq!(said[1], format!("!{}", OpeningFault::AuthInClear));
        wish.login_in_clear = true;
        let said = play(&wish, Channel::Clear, Channel::Encrypted, &[HI, clear, "235 ok"]);
        assert_eq!(said[1..], ["AUTH PLAIN AGd1YXJkAHBhIHNz", "+AUTH PLAIN"]);
        let login = "250 mx.example|250 AUTH=login";
        let replies = [HI, login, "334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6", "235 ok"];
        let said = play(&wish, Channel::Verified, Channel::Verified, &replies);
        assert_eq!(said[1..], ["AUTH LOGIN", "Z3VhcmQ=", "cGEgc3M=", "+AUTH login"]);
        assert_eq!(
            play(&wish, Channel::Verified, Channel::Verified, &[HI, PLAIN])[1],
            format!("!{}", OpeningFault::NoAuth)
        );
    }

    /// Goal: no secret reaches a log. Method: a server that repeats what it was told.
    #[test]
    fn a_refusal_of_auth_says_nothing_of_what_was_said() {
        let login = Login::new("guard", "pa ss").unwrap();
        assert_eq!(format!("{login:?}"), "Login(…)");
        let wish = wish(TlsUse::Required, Some(login));
        assert!(!format!("{wish:?}").contains("pa ss"));
        let echo = "535 5.7.8 what is AGd1YXJkAHBhIHNz";
        let said = play(&wish, Channel::Verified, Channel::Verified, &[HI, INSIDE, echo]);
        let text = "!AUTH: it says 535 5.7.8: look at name and password in `outbound.auth_file`";
        assert_eq!(said[2], text);
        for text in ["", "a\0b", "a\r\nRSET"] {
            assert!(Login::new("guard", text).is_none() && Login::new(text, "x").is_none());
        }
    }
}
