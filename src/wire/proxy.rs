//! Telling the server behind a pass-through who the client is: the PROXY protocol and XCLIENT.
//!
//! Takes: two addresses. Gives: the bytes to send. Standards: HAProxy's `proxy-protocol.txt`,
//! versions 1 and 2; Postfix's XCLIENT.

use std::net::{IpAddr, SocketAddr};

/// How the server behind is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tells {
    /// By XCLIENT, which Postfix takes from `smtpd_authorized_xclient_hosts`.
    #[default]
    Xclient,
    /// By a line of the PROXY protocol, version 1.
    ProxyV1,
    /// By a block of it, version 2.
    ProxyV2,
    /// Not at all: it takes us for the client.
    Nothing,
}

impl Tells {
    /// The names in settings.
    pub const NAMES: &[(&'static str, Tells)] = &[
        ("xclient", Tells::Xclient),
        ("proxy", Tells::ProxyV1),
        ("proxy-v2", Tells::ProxyV2),
        ("none", Tells::Nothing),
    ];
}

/// The line of version 1. `None`: the client came over no network.
pub fn proxy_v1(addresses: Option<(SocketAddr, SocketAddr)>) -> String {
    match addresses.map(canonical) {
        Some((from, to)) if from.is_ipv4() == to.is_ipv4() => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            let (source, target) = (from.ip(), to.ip());
            format!("PROXY {family} {source} {target} {} {}\r\n", from.port(), to.port())
        }
        _ => "PROXY UNKNOWN\r\n".to_owned(),
    }
}

/// The block of version 2.
pub fn proxy_v2(addresses: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
    let mut block = SIGNATURE.to_vec();
    match addresses.map(canonical) {
        Some((SocketAddr::V4(from), SocketAddr::V4(to))) => {
            block.extend_from_slice(&[0x21, 0x11, 0, 12]);
            block.extend_from_slice(&from.ip().octets());
            block.extend_from_slice(&to.ip().octets());
            block.extend_from_slice(&from.port().to_be_bytes());
            block.extend_from_slice(&to.port().to_be_bytes());
        }
        Some((SocketAddr::V6(from), SocketAddr::V6(to))) => {
            block.extend_from_slice(&[0x21, 0x21, 0, 36]);
            block.extend_from_slice(&from.ip().octets());
            block.extend_from_slice(&to.ip().octets());
            block.extend_from_slice(&from.port().to_be_bytes());
            block.extend_from_slice(&to.port().to_be_bytes());
        }
        // LOCAL: the server takes the connection as it is.
        _ => block.extend_from_slice(&[0x20, 0, 0, 0]),
    }
    block
}

/// XCLIENT with those attributes that the server takes; `None` when ADDR is not among them.
pub fn xclient(client: SocketAddr, offered: &str) -> Option<String> {
    let takes = |name: &str| offered.split(' ').any(|word| word.eq_ignore_ascii_case(name));
    let address = match client.ip().to_canonical() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("IPV6:{ip}"),
    };
    // Why no name: the server looks it up, or does without. Another's word would be ours.
    let name = if takes("NAME") { " NAME=[UNAVAILABLE]" } else { "" };
    let port = match takes("PORT") {
        true => format!(" PORT={}", client.port()),
        false => String::new(),
    };
    takes("ADDR").then(|| format!("XCLIENT{name} ADDR={address}{port}\r\n"))
}

fn canonical((from, to): (SocketAddr, SocketAddr)) -> (SocketAddr, SocketAddr) {
    let plain = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
    (plain(from), plain(to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(from: &str, to: &str) -> Option<(SocketAddr, SocketAddr)> {
        Some((from.parse().unwrap(), to.parse().unwrap()))
    }

    #[test]
    fn the_line_and_the_block_name_both_ends() {
        let v4 = pair("192.0.2.55:40000", "[::ffff:198.51.100.1]:25");
        assert_eq!(proxy_v1(v4), "PROXY TCP4 192.0.2.55 198.51.100.1 40000 25\r\n");
        let v6 = pair("[2001:db8::1]:40000", "[2001:db8::2]:25");
        assert_eq!(proxy_v1(v6), "PROXY TCP6 2001:db8::1 2001:db8::2 40000 25\r\n");
        assert_eq!(proxy_v1(None), "PROXY UNKNOWN\r\n");
        let block = proxy_v2(v4);
        assert_eq!(block.len(), 16 + 12);
        assert_eq!(&block[12..], b"\x21\x11\0\x0c\xc0\0\x02\x37\xc6\x33\x64\x01\x9c\x40\0\x19");
        assert_eq!(proxy_v2(v6).len(), 16 + 36);
        assert_eq!(&proxy_v2(None)[12..], b"\x20\0\0\0");
    }

    #[test]
    fn xclient_says_what_the_server_takes() {
        let client = "192.0.2.55:40000".parse().unwrap();
        let all = "NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN";
        let wanted = "XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.55 PORT=40000\r\n";
        assert_eq!(xclient(client, all).unwrap(), wanted);
        assert_eq!(xclient(client, "ADDR").unwrap(), "XCLIENT ADDR=192.0.2.55\r\n");
        assert_eq!(xclient(client, "NAME"), None);
        let v6 = "[2001:db8::1]:1".parse().unwrap();
        assert_eq!(xclient(v6, "ADDR").unwrap(), "XCLIENT ADDR=IPV6:2001:db8::1\r\n");
    }
}
