//! What TLS means to a conversation: what is offered, what is asked for, what is there.
//!
//! Standards: RFC 3207, RFC 7435, RFC 8314 §3, RFC 8689.

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
