//! Our own trace: the two lines we put on top of a message, and how we know them again.
//!
//! Takes: what was decided to be said, the site's key. Gives: header lines as bytes; and of a
//! message that comes in, which recipients our own trace proves it went to before.
//! Forged, replayed to another recipient, of another site: counts nothing and harms nobody.
//! Bounds: `limits::TRACE_LINES_BYTES_MAX`, `limits::TRACE_RECIPIENTS_MAX`.
//! Standards: RFC 5321 §4.4 (Received), RFC 2104 in spirit: keyed BLAKE3, 64 bit a recipient.

use std::net::IpAddr;

use crate::mail::address::ForwardPath;
use crate::mail::envelope::Secured;
use crate::mail::hex::hex;
use crate::mail::keyed::keyed_hash;
use crate::mail::limits::TRACE_RECIPIENTS_MAX;
use crate::mail::time::Timestamp;

/// The name of the trace field.
pub const TRACE_FIELD: &str = "X-Replyguard-Trace";

/// Bytes of one recipient's code.
const CODE_BYTES: usize = 8;

/// The site's key for traces, 256 bit, from the state directory; and the one before it, whose
/// traces are still on their way.
#[derive(Clone)]
pub struct TraceKey {
    now: [u8; 32],
    before: Option<[u8; 32]>,
}

/// Which of the two keys made a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    Now,
    Before,
}

impl TraceKey {
    /// From 32 bytes of chance.
    pub fn new(bytes: [u8; 32]) -> TraceKey {
        TraceKey { now: bytes, before: None }
    }

    /// The same, with the key that it replaced: traces made with that one still count.
    pub fn and_before(self, bytes: [u8; 32]) -> TraceKey {
        TraceKey { before: Some(bytes), ..self }
    }

    fn of(&self, age: Age) -> &[u8; 32] {
        let before = self.before.as_ref().filter(|_| age == Age::Before);
        before.unwrap_or(&self.now)
    }

    fn code(&self, age: Age, site: &str, event: &str, recipient: &ForwardPath) -> [u8; CODE_BYTES] {
        keyed_hash(self.of(age), &["rcpt", site, event, recipient.canonical().as_str()])
    }

    fn seal(&self, age: Age, site: &str, event: &str, lap: &str, codes: &str) -> [u8; CODE_BYTES] {
        keyed_hash(self.of(age), &["line", site, event, lap, codes])
    }
}

impl std::fmt::Debug for TraceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TraceKey")
    }
}

/// What the lines say.
#[derive(Clone, Debug)]
pub struct Trace<'a> {
    /// `loops.site`.
    pub site: &'a str,
    /// The event's ULID.
    pub event: &'a str,
    /// How often the message was here before.
    pub lap: u32,
    /// The recipients this copy goes to.
    pub recipients: &'a [ForwardPath],
}

/// Who gave us the message, for our `Received` line.
#[derive(Clone, Debug)]
pub struct Arrival<'a> {
    /// What the client called itself.
    pub helo: &'a str,
    /// Its address; `None` on a unix socket.
    pub ip: Option<IpAddr>,
    /// ESMTP, SMTP, LMTP, UTF8SMTP, UTF8LMTP, with an S behind it over TLS (RFC 3848, RFC 6531
    /// §3.7.3).
    pub with: &'a str,
    /// The TLS it came over; `None` in the clear.
    pub tls: Option<&'a Secured>,
    /// Our host name.
    pub hostname: &'a str,
    /// When.
    pub at: Timestamp,
}

/// Our two lines, each with its CRLF: the trace and, below it, `Received`.
///
/// `fill` are bytes of chance that hide how many recipients there are: codes are padded to 1, 8 or
/// 32, and above 32 recipients there are none, so a Bcc cannot be counted.
/// Why the trace stands on top: should the message begin with a folded rest of a line, that rest
/// joins the line above it, and a `Received` line bears it better.
pub fn lines(
    key: &TraceKey,
    trace: &Trace<'_>,
    arrival: &Arrival<'_>,
    fill: &[u8; 256],
) -> Vec<u8> {
    let codes = codes(key, trace, fill);
    let lap = trace.lap.to_string();
    let seal = hex(&key.seal(Age::Now, trace.site, trace.event, &lap, &codes));
    // Why pieces and no format: every message has these lines.
    let mut text = [
        TRACE_FIELD,
        ": v=1; s=",
        trace.site,
        "; e=",
        trace.event,
        "; l=",
        &lap,
        ";\r\n\tm=",
        &seal,
    ]
    .concat();
    text.reserve(LINES_BYTES_USUAL);
    for (index, code) in codes.split(',').filter(|code| !code.is_empty()).enumerate() {
        text.push_str(match index {
            0 => ";\r\n\tr=",
            n if n % 4 == 0 => ",\r\n\t",
            _ => ",",
        });
        text.push_str(code);
    }
    let client = match arrival.ip {
        Some(IpAddr::V4(ip)) => format!("[{ip}]"),
        Some(IpAddr::V6(ip)) => format!("[IPv6:{ip}]"),
        None => "unix socket".to_owned(),
    };
    let pieces = ["\r\nReceived: from ", plain(arrival.helo), " (", &client, ")"];
    pieces.iter().for_each(|piece| text.push_str(piece));
    if let Some(Secured { version, cipher }) = arrival.tls {
        text.push_str(&format!("\r\n\t(using {version} with cipher {cipher})"));
    }
    let date = arrival.at.header_date();
    let (hostname, with, event) = (arrival.hostname, arrival.with, trace.event);
    let pieces = [
        "\r\n\tby ",
        hostname,
        " (replyguard) with ",
        with,
        " id ",
        event,
        ";\r\n\t",
        &date,
        "\r\n",
    ];
    pieces.iter().for_each(|piece| text.push_str(piece));
    text.into_bytes()
}

/// Bytes of our lines behind the trace's beginning, as a rule.
const LINES_BYTES_USUAL: usize = 256;

fn codes(key: &TraceKey, trace: &Trace<'_>, fill: &[u8; 256]) -> String {
    let count = trace.recipients.len();
    let padded = match count {
        0 => return String::new(),
        1 => 1,
        2..=8 => 8,
        _ if count <= TRACE_RECIPIENTS_MAX => TRACE_RECIPIENTS_MAX,
        _ => return String::new(),
    };
    let real = trace.recipients.iter().map(|to| key.code(Age::Now, trace.site, trace.event, to));
    let chance = fill.as_chunks::<CODE_BYTES>().0.iter().copied();
    let mut codes: Vec<String> = real.chain(chance).take(padded).map(|code| hex(&code)).collect();
    // Why: sorted, the real ones do not stand first.
    codes.sort_unstable();
    codes.join(",")
}

/// A trace line of ours, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lap {
    /// The event that wrote it.
    pub event: String,
    /// How often the message had been here before, then.
    pub lap: u32,
    codes: Vec<String>,
    site: String,
    age: Age,
}

impl Lap {
    /// Reads the value of a trace field, folded or not; `None` unless this site wrote it.
    pub fn read(value: &str, site: &str, key: &TraceKey) -> Option<Lap> {
        let (mut event, mut lap, mut seal, mut codes) = (None, None, None, String::new());
        for word in value.split(';').map(str::trim) {
            match word.split_once('=')? {
                ("v", "1") => {}
                ("s", found) if found == site => {}
                ("e", found) => event = Some(found.to_owned()),
                ("l", found) => lap = Some(found.parse::<u32>().ok()?),
                ("m", found) => seal = Some(found.to_owned()),
                ("r", found) => {
                    codes = found.split(',').map(str::trim).collect::<Vec<_>>().join(",")
                }
                _ => return None,
            }
        }
        let (event, lap) = (event?, lap?);
        let seal = seal?;
        let ages = [Some(Age::Now), key.before.map(|_| Age::Before)];
        let age = ages.into_iter().flatten().find(|age| {
            let right = hex(&key.seal(*age, site, &event, &lap.to_string(), &codes));
            same(right.as_bytes(), seal.as_bytes())
        })?;
        let codes = codes.split(',').filter(|code| !code.is_empty()).map(str::to_owned).collect();
        Some(Lap { event, lap, codes, site: site.to_owned(), age })
    }

    /// How many recipients this copy had gone to, as it shows: 1, 8 (2 to 8) or 32 (9 to 32); 0
    /// for more.
    pub fn recipients(&self) -> usize {
        self.codes.len()
    }

    /// Whether this copy had gone to this recipient.
    pub fn went_to(&self, recipient: &ForwardPath, key: &TraceKey) -> bool {
        let code = hex(&key.code(self.age, &self.site, &self.event, recipient));
        self.codes.iter().any(|known| same(known.as_bytes(), code.as_bytes()))
    }
}

/// Compares in constant time: the answer must not tell how much of a forged code was right.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// A name as it may stand in a header field: what a peer chose must not make a comment or a line.
fn plain(name: &str) -> &str {
    let right = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
    match !name.is_empty() && name.len() <= 255 && name.bytes().all(right) {
        true => name,
        false => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::address::Address;
    use crate::mail::limits::TRACE_LINES_BYTES_MAX;

    fn to(text: &str) -> ForwardPath {
        ForwardPath::Address(Address::parse(text).unwrap())
    }

    fn key(seed: u8) -> TraceKey {
        TraceKey::new([seed; 32])
    }

    fn arrival() -> Arrival<'static> {
        Arrival {
            helo: "mx.uni.example",
            ip: Some("127.0.0.1".parse().unwrap()),
            with: "ESMTP",
            tls: None,
            hostname: "guard.uni.example",
            at: Timestamp::from_millis(1_795_282_739_000),
        }
    }

    fn written(recipients: &[ForwardPath]) -> String {
        let trace = Trace { site: "uni", event: "01J", lap: 2, recipients };
        String::from_utf8(lines(&key(1), &trace, &arrival(), &[7; 256])).unwrap()
    }

    fn value(lines: &str) -> String {
        let end = lines.find("\r\nReceived:").unwrap();
        lines[TRACE_FIELD.len() + 1..end].replace("\r\n", "")
    }

    #[test]
    fn our_own_trace_is_known_again_for_its_recipients_only() {
        let recipients = [to("Joe@bank.example"), to("ann@shop.example")];
        let lines = written(&recipients);
        let lap = Lap::read(&value(&lines), "uni", &key(1)).unwrap();
        assert_eq!((lap.event.as_str(), lap.lap), ("01J", 2));
        assert!(lap.went_to(&to("joe@bank.example"), &key(1)));
        assert!(lap.went_to(&to("ann@shop.example"), &key(1)));
        assert!(!lap.went_to(&to("eve@bank.example"), &key(1)));
    }

    #[test]
    fn a_replaced_key_is_read_and_never_written() {
        let recipients = [to("joe@bank.example")];
        let old = value(&written(&recipients));
        let new = key(2).and_before([1; 32]);
        let lap = Lap::read(&old, "uni", &new).unwrap();
        assert!(lap.went_to(&recipients[0], &new));
        assert!(!lap.went_to(&to("eve@bank.example"), &new));
        let trace = Trace { site: "uni", event: "01J", lap: 0, recipients: &recipients };
        let fresh = String::from_utf8(lines(&new, &trace, &arrival(), &[7; 256])).unwrap();
        assert!(Lap::read(&value(&fresh), "uni", &key(2)).is_some());
        assert_eq!(Lap::read(&value(&fresh), "uni", &key(1)), None);
    }

    #[test]
    fn what_is_forged_or_of_another_site_counts_nothing() {
        let lines = written(&[to("joe@bank.example")]);
        let value = value(&lines);
        assert_eq!(Lap::read(&value, "other", &key(1)), None);
        assert_eq!(Lap::read(&value, "uni", &key(2)), None);
        assert_eq!(Lap::read(&value.replace("l=2", "l=3"), "uni", &key(1)), None);
        assert_eq!(Lap::read(&value.replace("e=01J", "e=01K"), "uni", &key(1)), None);
        assert_eq!(Lap::read(&format!("{value},00"), "uni", &key(1)), None);
        assert_eq!(Lap::read("", "uni", &key(1)), None);
        assert_eq!(Lap::read("v=1; s=uni; e=01J; l=2", "uni", &key(1)), None);
    }

    #[test]
    fn the_number_of_recipients_is_hidden_and_the_lines_are_bounded() {
        for (count, codes) in [(1, 1), (2, 8), (8, 8), (9, 32), (32, 32), (33, 0)] {
            let recipients: Vec<_> = (0..count).map(|n| to(&format!("u{n}@x.example"))).collect();
            let lines = written(&recipients);
            let lap = Lap::read(&value(&lines), "uni", &key(1)).unwrap();
            assert_eq!(lap.recipients(), codes, "{count} recipients");
            assert!(lines.len() <= TRACE_LINES_BYTES_MAX);
            assert!(lines.lines().all(|line| line.len() < 100), "{lines}");
        }
    }

    #[test]
    fn what_came_over_tls_says_so() {
        let tls = Secured {
            version: "TLSv1.2".to_owned(),
            cipher: "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256".to_owned(),
        };
        let trace = Trace { site: "uni", event: "01J", lap: 0, recipients: &[] };
        let arrival = Arrival { with: "ESMTPS", tls: Some(&tls), ..arrival() };
        let lines = String::from_utf8(lines(&key(1), &trace, &arrival, &[0; 256])).unwrap();
        let wanted = "([127.0.0.1])\r\n\t(using TLSv1.2 with cipher \
            TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256)\r\n\tby guard.uni.example (replyguard) \
            with ESMTPS id 01J;";
        assert!(lines.contains(wanted), "{lines}");
        assert!(lines.lines().all(|line| line.len() < 100), "{lines}");
    }

    #[test]
    fn a_peers_name_makes_no_line_and_no_comment() {
        let trace = Trace { site: "uni", event: "01J", lap: 0, recipients: &[] };
        let arrival = Arrival { helo: "x\r\nBcc: (a@b.example)", ip: None, ..arrival() };
        let lines = String::from_utf8(lines(&key(1), &trace, &arrival, &[0; 256])).unwrap();
        assert!(lines.contains("Received: from unknown (unix socket)\r\n"));
        assert!(!lines.contains("Bcc"));
    }
}
