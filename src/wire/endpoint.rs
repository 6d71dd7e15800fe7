//! Where a listener or a next hop is: `host:port`, `[::1]:port` or `unix:/path`; and what is spoken
//! there.

use std::fmt;
use std::path::PathBuf;

/// Which protocol is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 5321.
    #[default]
    Smtp,
    /// RFC 2033: a reply for each recipient after the final dot.
    Lmtp,
}

impl Protocol {
    /// The name in settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Smtp => "smtp",
            Protocol::Lmtp => "lmtp",
        }
    }
}

/// A place to listen at or to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A host name or IP address (without brackets), and a port.
    Tcp {
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
    /// A unix socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// Reads `host:port`, `[v6]:port` or `unix:/path`; the error says what is wrong, for people.
    pub fn parse(text: &str) -> Result<Endpoint, &'static str> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.starts_with('/') {
                true => Ok(Endpoint::Unix(PathBuf::from(path))),
                false => Err("the path of a unix socket must be absolute: \"unix:/run/x.sock\""),
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or("no port: write \"host:port\"")?;
        let port = port.parse().map_err(|_| "the port must be a number from 0 to 65535")?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(inner) => inner,
            None if host.contains(':') => {
                return Err("an IPv6 address needs brackets: \"[::1]:25\"");
            }
            None => host,
        };
        let plain = !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
        plain
            .then(|| Endpoint::Tcp { host: host.to_owned(), port })
            .ok_or("no host: write \"host:port\"")
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Endpoint::Tcp { host, port } => write!(f, "{host}:{port}"),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Endpoint {
    /// Whether what is said there stays on this host.
    pub fn is_near(&self) -> bool {
        match self {
            Endpoint::Unix(_) => true,
            Endpoint::Tcp { host, .. } => {
                let ip = host.parse::<std::net::IpAddr>();
                ip.map_or(host == "localhost", |ip| ip.is_loopback())
            }
        }
    }
}

/// A listener of mail: where it is, and whether TLS begins with the first byte. Written `host:port`
/// or `tls:host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Listen {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Whether TLS begins with the first byte (RFC 8314 §3.3).
    pub tls: bool,
}

impl Listen {
    /// Reads a place, with or without `tls:` before it.
    pub fn parse(text: &str) -> Result<Listen, &'static str> {
        let (tls, rest) = match text.strip_prefix("tls:") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        Ok(Listen { endpoint: Endpoint::parse(rest)?, tls })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.tls { "tls:" } else { "" }, self.endpoint)
    }
}

/// A next hop: where it is and what it speaks. Written `host:port`, `lmtp:host:port`,
/// `tls:host:port` or `lmtp:tls:host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NextHop {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Whether it speaks LMTP instead of SMTP.
    pub lmtp: bool,
    /// Whether TLS begins with the first byte (RFC 8314 §3.3).
    pub tls: bool,
}

impl NextHop {
    /// Reads `host:port`, `unix:/path`, or either behind `lmtp:`, `tls:` or both.
    pub fn parse(text: &str) -> Result<NextHop, &'static str> {
        let (lmtp, rest) = match text.strip_prefix("lmtp:") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix("smtp:").unwrap_or(text)),
        };
        let Listen { endpoint, tls } = Listen::parse(rest)?;
        Ok(NextHop { endpoint, lmtp, tls })
    }

    /// What it speaks.
    pub fn protocol(&self) -> Protocol {
        if self.lmtp { Protocol::Lmtp } else { Protocol::Smtp }
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lmtp, tls) =
            (if self.lmtp { "lmtp:" } else { "" }, if self.tls { "tls:" } else { "" });
        write!(f, "{lmtp}{tls}{}", self.endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_written_alike() {
        for text in ["127.0.0.1:10025", "[::1]:25", "unix:/run/x.sock", "mx.example:25"] {
            assert_eq!(Endpoint::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "lmtp:unix:/run/lmtp",
            "127.0.0.1:10026",
            "lmtp:[::1]:24",
            "tls:mx.example:465",
            "lmtp:tls:mx.example:24",
        ] {
            assert_eq!(NextHop::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(NextHop::parse("smtp:a:1").unwrap().protocol(), Protocol::Smtp);
    }

    #[test]
    fn what_is_no_place_says_why() {
        for text in ["", "127.0.0.1", "a:b", "::1:25", "unix:x", ":25", "a b:25", "a:70000"] {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
    }
}
