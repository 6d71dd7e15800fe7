//! What TLS means to a conversation: what is offered, what is asked for, what is there.
//!
//! Standards: RFC 3207, RFC 7435, RFC 8314 §3, RFC 8689.

use crate::mail::reply::Reply;
use crate::wire::command::Command;

/// What a listener offers its clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Starttls {
    /// Nothing.
    #[default]
    Off,
    /// STARTTLS.
    Offered,
    /// STARTTLS, and nothing else before it (RFC 3207 §4).
    Required,
}

/// What a client has said so far, as far as STARTTLS asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// No greeting.
    Nothing,
    /// HELO, which knows no extensions.
    Helo,
    /// EHLO or LHLO.
    Ehlo,
    /// MAIL.
    Mail,
}

/// A refusal: code, enhanced status and text.
pub type Refused = (u16, &'static str, &'static str);

/// What is said to commands that TLS must precede (RFC 3207 §4).
pub const TLS_FIRST: Refused = (530, "5.7.0", "Must issue a STARTTLS command first");

/// RFC 8689 §4.2.1: a message that needs REQUIRETLS goes no way that lacks it.
pub const NO_REQUIRETLS: Refused = (550, "5.7.30", "REQUIRETLS support required");

/// The reply behind which the handshake comes.
pub fn ready() -> Reply {
    Reply::new(220, "2.0.0", "Ready to start TLS")
}

impl Starttls {
    /// Whether EHLO names it.
    pub fn is_offered_over(self, channel: Channel) -> bool {
        self != Starttls::Off && !channel.is_encrypted()
    }

    /// Whether it must precede this command; `None`: one that cannot be read. RFC 3207 §4: before TLS
    /// only NOOP, EHLO, STARTTLS and QUIT are answered otherwise.
    pub fn must_precede(self, channel: Channel, command: Option<&Command>) -> bool {
        let may_be_said = matches!(
            command,
            Some(
                Command::Ehlo(_)
                    | Command::Lhlo(_)
                    | Command::Noop
                    | Command::StartTls
                    | Command::Quit
            )
        );
        self == Starttls::Required && !channel.is_encrypted() && !may_be_said
    }

    /// What there is against STARTTLS itself.
    pub fn refused(self, channel: Channel, said: Said) -> Option<Refused> {
        let text = match said {
            _ if channel.is_encrypted() => "TLS is there already",
            _ if self == Starttls::Off => {
                return Some((502, "5.5.1", "STARTTLS is not implemented here"));
            }
            Said::Nothing => "say hello first",
            Said::Mail => "STARTTLS stands before MAIL",
            Said::Helo => "STARTTLS needs EHLO",
            Said::Ehlo => return None,
        };
        Some((503, "5.5.1", text))
    }
}

/// What is asked of a next hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsUse {
    /// Nothing: all is said in the clear.
    #[default]
    Off,
    /// TLS where it works, whoever is at the other end (RFC 7435 §3).
    Opportunistic,
    /// TLS, or no mail.
    Required,
}

/// Whether others on the way can read and change what is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Channel {
    /// They can.
    #[default]
    Clear,
    /// They cannot, but the other end may be anybody.
    Encrypted,
    /// They cannot, and the other end showed a certificate that we trust. Of a client: nobody asks
    /// for one, so there it is `Encrypted`.
    Verified,
}

impl Channel {
    /// Whether there is TLS.
    pub fn is_encrypted(self) -> bool {
        self != Channel::Clear
    }

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Channel::Clear => "clear",
            Channel::Encrypted => "encrypted",
            Channel::Verified => "verified",
        }
    }
}
