//! Station 3: which header lines of a message can be believed (the border walk, design.md §3).
//!
//! Takes: the Received lines of one header from the top, and `Site`. Gives: `Border`: how far down
//! the lines are ours, and who gave the message to us. Bounds: `limits::TRACE_LINES_MAX`.
//! Standards: RFC 5321 §4.4 (trace), RFC 8601 §1.6 (trust boundary), RFC 3848 (authentication).
//!
//! A line is ours while its `by` host is one of ours and every line above it is ours. Below a line
//! the walk goes on only when its client is inside or a trusted relay, or when there was no client:
//! a program on our host. The first of our lines whose client is outside is the *border line*.
//! All below it is the peer's word, however much it looks like ours.

use std::borrow::Borrow;
use std::net::IpAddr;

use crate::judge::alignment::is_near;
use crate::judge::site::Site;
use crate::mail::address::Domain;
use crate::mail::header::Fields;
use crate::mail::limits::TRACE_LINES_MAX;
use crate::mail::received::{Client, From, Received};

/// The Received lines of a header, with where each stands among its fields.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// The lines from the top, at most `limits::TRACE_LINES_MAX`.
    pub lines: Vec<Received>,
    /// Which field each line is.
    pub at: Vec<usize>,
}

impl Trace {
    /// Reads the Received lines of a header.
    pub fn of(fields: &Fields<'_>) -> Trace {
        Trace::top_of(fields, TRACE_LINES_MAX)
    }

    /// Reads the topmost Received lines of a header.
    pub fn top_of(fields: &Fields<'_>, lines_max: usize) -> Trace {
        let (at, lines) = Trace::read(fields).take(lines_max).unzip();
        Trace { lines, at }
    }

    /// Reads them down to the first that names a host.
    pub fn to_host(fields: &Fields<'_>) -> Trace {
        let mut trace = Trace::default();
        for (at, line) in Trace::read(fields).take(TRACE_LINES_MAX) {
            let is_last = line.by.is_some();
            trace.at.push(at);
            trace.lines.push(line);
            if is_last {
                break;
            }
        }
        trace
    }

    /// Each Received line as it is asked for, and which field it is.
    fn read<'f>(fields: &'f Fields<'_>) -> impl Iterator<Item = (usize, Received)> + 'f {
        let received = fields.iter().enumerate().filter(|(_, field)| field.is("received"));
        received.map(|(at, field)| (at, Received::parse(&field.text())))
    }

    /// How far it can be believed.
    pub fn border(&self, site: &Site) -> Border {
        walk(&self.lines, site)
    }

    /// The topmost line that names a host: that of the system that holds the message.
    pub fn top(&self) -> Option<&Received> {
        self.lines.iter().find(|line| line.by.is_some())
    }
}

/// How far down a header can be believed, and why no further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Border {
    /// How many Received lines, from the top, are ours or a trusted relay's.
    pub believed: usize,
    /// Which of these lines has a trusted relay for a client, the topmost one: what our hosts
    /// found out about that client is about the relay, not about the peer.
    pub relay: Option<usize>,
    /// Where the walk ended.
    pub end: End,
}

/// Where the walk ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// There is no Received line that names a host.
    NoLine,
    /// The topmost line is not ours: nothing can be believed.
    Foreign,
    /// All lines are ours, and none came from outside.
    Inside(Inside),
    /// A border line.
    Outside(BorderLine),
    /// One of our lines has a client and does not say which.
    Unsaid,
    /// A trusted relay gave it to us, and its lines do not say who gave it to the relay.
    BehindRelay {
        /// The relay.
        relay: IpAddr,
    },
    /// A trusted relay gave it to us, and no line says that anybody gave it to the relay: a program
    /// of its own made it, like the bounce of a backup MX.
    MadeByRelay {
        /// The relay.
        relay: IpAddr,
    },
}

/// How a message came from inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inside {
    /// A client of ours, or a program on our host, made it; nothing stands below.
    Made,
    /// A user who proved to be one of ours handed it in; what stands below is the user's word.
    Authenticated,
    /// A client of ours handed it in, and lines that are not ours stand below: a filter that
    /// gives messages back, or a host of ours with a name nobody declared.
    Reinjected,
}

/// The first of our lines whose client is outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BorderLine {
    /// Which of the Received lines, from the top, beginning with 0.
    pub index: usize,
    /// The client's address.
    pub ip: IpAddr,
    /// What the client called itself.
    pub helo: String,
    /// What DNS calls its address, as the host that wrote the line verified it.
    pub rdns: Option<Domain>,
    /// The host that wrote the line, as written.
    pub by: String,
    /// Whether it is a trusted relay's own line.
    pub is_relays: bool,
}

impl BorderLine {
    /// Whether the client has a private address: an inside host missing from `local.networks`, or
    /// a gateway missing from `tap.trusted_relays`.
    pub fn is_private(&self) -> bool {
        is_private(self.ip)
    }

    /// Whether the client's verified name lies within a domain of ours: an inside host with a public
    /// address, missing from `local.networks`.
    pub fn is_named_ours(&self, site: &Site) -> bool {
        let mut names = std::iter::successors(self.rdns.clone(), Domain::parent);
        names.any(|name| site.is_local_domain(&name))
    }
}

impl Border {
    /// The border line.
    pub fn line(&self) -> Option<&BorderLine> {
        match &self.end {
            End::Outside(line) => Some(line),
            _ => None,
        }
    }
}

/// Whom the next line down may be written by.
enum Next {
    /// One of our hosts.
    Own,
    /// One of our hosts, or a filter on it that calls itself localhost: the client was inside.
    Inside,
    /// A trusted relay: whoever wrote the line below the one with the relay for a client
    /// (RFC 5321 §4.4: a relay adds its line on top).
    Relay(IpAddr),
    /// The same relay once more, by its name: it handed the message from one of its programs or
    /// hosts to another.
    SameRelay(IpAddr, String),
}

/// Walks down the Received lines of one header.
pub fn walk(lines: impl IntoIterator<Item: Borrow<Received>>, site: &Site) -> Border {
    let mut border = Border { believed: 0, relay: None, end: End::NoLine };
    let mut next = Next::Own;
    for (index, line) in lines.into_iter().enumerate() {
        let line = line.borrow();
        if line.is_qmail_step() {
            continue;
        }
        let by = line.by.clone().unwrap_or_default();
        let is_filters = matches!(next, Next::Inside) && is_filters_step(line, &by, site);
        let is_own = site.is_own_host(&by) || is_filters;
        let is_believed = match &next {
            Next::Own | Next::Inside => is_own,
            Next::Relay(_) => !by.is_empty(),
            Next::SameRelay(_, name) => is_own || is_same_site(name, &by),
        };
        if !is_believed {
            border.end = stopped(&border, &next);
            return border;
        }
        border.believed = index + 1;
        if is_own && line.is_authenticated() {
            border.end = End::Inside(Inside::Authenticated);
            return border;
        }
        let relay = match &next {
            Next::Relay(ip) | Next::SameRelay(ip, _) if !is_own => Some(*ip),
            _ => None,
        };
        match hop(line, by, index, relay, site) {
            Hop::On(on) => next = on,
            Hop::End(end) => {
                border.end = end;
                return border;
            }
        }
        if let (Next::Relay(_), None) = (&next, border.relay) {
            border.relay = Some(index);
        }
    }
    border.end = match next {
        Next::Own if border.believed == 0 => End::NoLine,
        Next::Own | Next::Inside => End::Inside(Inside::Made),
        Next::Relay(relay) | Next::SameRelay(relay, _) => End::MadeByRelay { relay },
    };
    border
}

/// What a believed line says of the next one.
enum Hop {
    On(Next),
    End(End),
}

/// `relay`: whose line it is, when it is not ours but a trusted relay's.
fn hop(line: &Received, by: String, index: usize, relay: Option<IpAddr>, site: &Site) -> Hop {
    let own_or_same = |by: String, own: Next| match relay {
        None => own,
        Some(ip) => Next::SameRelay(ip, by),
    };
    // Why: what fetches mail writes down whom it fetched it from, and not who brought it there.
    let unsaid = || Hop::End(relay.map_or(End::Unsaid, |relay| End::BehindRelay { relay }));
    if line.is_fetched() {
        return unsaid();
    }
    let client = match &line.from {
        From::Local => return Hop::On(own_or_same(by, Next::Own)),
        // Dovecot writes `from <own name> by <own name> with LMTP` without an address.
        From::Unsaid { name } if line.is_lmtp() && site.is_own_host(name) => {
            return Hop::On(Next::Own);
        }
        From::Unsaid { .. } => return unsaid(),
        From::Client(client) => client,
    };
    let ip = outermost(client, site);
    if site.is_trusted_relay(ip) {
        return Hop::On(Next::Relay(ip));
    }
    if site.is_inside(ip) {
        return Hop::On(own_or_same(by, Next::Inside));
    }
    // Why: a relay's private clients are the relay's own; ours are not, as they are declared.
    if relay.is_some() && is_private(ip) {
        return Hop::On(own_or_same(by, Next::Own));
    }
    let is_relays = relay.is_some();
    let name = client.rdns.as_deref().filter(|_| ip == client.ip).unwrap_or_default();
    let rdns = Domain::parse(name.rsplit('@').next().unwrap_or_default());
    let helo = client.helo.clone();
    Hop::End(End::Outside(BorderLine { index, ip, helo, rdns, by, is_relays }))
}

/// The client's address; of several the first that is outside.
///
/// Why: one of them may be what the client said of itself, and an outside client gains nothing by
/// naming another outside address, but everything by naming an inside one.
fn outermost(client: &Client, site: &Site) -> IpAddr {
    let is_outside =
        |ip: &IpAddr| !(site.is_inside(*ip) || site.is_trusted_relay(*ip) || is_private(*ip));
    let mut seen = std::iter::once(client.ip).chain(client.others.iter().copied());
    seen.find(is_outside).unwrap_or(client.ip)
}

/// Whether a filter of ours wrote the line: amavis says `by localhost` when it takes a message from
/// an inside host and gives it back. What fetches mail elsewhere says so too, but not with SMTP.
fn is_filters_step(line: &Received, by: &str, site: &Site) -> bool {
    let with = line.with.as_deref().unwrap_or_default().to_ascii_uppercase();
    let is_inside = line.client().is_some_and(|client| site.is_inside(outermost(client, site)));
    ["localhost", "localhost.localdomain"].iter().any(|name| by.eq_ignore_ascii_case(name))
        && (with.contains("SMTP") || with.contains("LMTP"))
        && is_inside
}

/// A line that is not believed: what that means after the lines above it.
fn stopped(border: &Border, next: &Next) -> End {
    match next {
        Next::Relay(relay) | Next::SameRelay(relay, _) => End::BehindRelay { relay: *relay },
        Next::Own if border.believed == 0 => End::Foreign,
        Next::Own | Next::Inside => End::Inside(Inside::Reinjected),
    }
}

/// Whether two hosts have the same name, or names under the same registrable domain.
fn is_same_site(a: &str, b: &str) -> bool {
    let (Some(a), Some(b)) = (Domain::parse(a), Domain::parse(b)) else { return false };
    is_near(&a, &b)
}

/// Addresses of inside networks (RFC 1918, RFC 4193, RFC 6598) and of one host or link.
fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let is_shared = ip.octets().first() == Some(&100) && (ip.to_bits() >> 22) & 3 == 1;
            ip.is_private() || ip.is_loopback() || ip.is_link_local() || is_shared
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_loopback() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn site() -> Site {
        Site {
            networks: vec!["127.0.0.0/8".parse().unwrap(), "198.51.100.0/24".parse().unwrap()],
            trusted_relays: vec!["203.0.113.0/24".parse().unwrap()],
            hosts: ["mx.ours.test".into(), "mail.ours.test".into()].into(),
            ..Site::default()
        }
    }

    fn walked(lines: &[&str]) -> Border {
        walk(lines.iter().map(|line| Received::parse(line)), &site())
    }

    fn outside(index: usize, ip: &str) -> (usize, Option<(usize, String)>) {
        (index + 1, Some((index, ip.to_owned())))
    }

    fn line_of(border: &Border) -> (usize, Option<(usize, String)>) {
        (border.believed, border.line().map(|line| (line.index, line.ip.to_string())))
    }

    const OUTSIDE: &str =
        "from forged.example (unknown [192.0.2.55]) by mx.ours.test (Postfix) id A";
    const AMAVIS: &str =
        "from localhost (localhost [127.0.0.1]) by mx.ours.test (amavis, port 10024)";
    const INNER: &str =
        "from mx.ours.test (mx.ours.test [198.51.100.7]) by mail.ours.test (Postfix) id B";
    const MADE: &str = "by mx.ours.test (Postfix) id C";
    const FORGED: &str = "from bank.test (bank.test [198.51.100.1]) by mx.ours.test (Postfix) id F";
    const GATEWAY: &str =
        "from gw.filter.test (gw.filter.test [203.0.113.5]) by mx.ours.test (Postfix) id D";

    #[test]
    fn the_first_line_with_a_client_outside_is_the_border() {
        assert_eq!(line_of(&walked(&[OUTSIDE])), outside(0, "192.0.2.55"));
        assert_eq!(line_of(&walked(&[INNER, AMAVIS, OUTSIDE])), outside(2, "192.0.2.55"));
        assert_eq!(line_of(&walked(&[MADE, OUTSIDE])), outside(1, "192.0.2.55"));
        let line = walked(&[OUTSIDE]).line().cloned().unwrap();
        assert_eq!((line.helo.as_str(), line.by.as_str()), ("forged.example", "mx.ours.test"));
        assert!(!line.is_private() && !line.is_relays);
    }

    #[test]
    fn below_the_border_nothing_is_believed() {
        for below in [&[FORGED][..], &[FORGED, AMAVIS, INNER], &[MADE], &[GATEWAY, FORGED]] {
            let lines = [&[OUTSIDE][..], below].concat();
            assert_eq!(line_of(&walked(&lines)), outside(0, "192.0.2.55"), "{below:?}");
        }
    }

    #[test]
    fn a_helo_that_claims_to_be_inside_changes_nothing() {
        for line in [
            "from [127.0.0.1] (unknown [192.0.2.55]) by mx.ours.test (Postfix) id A",
            "from [192.0.2.55] (helo=mx.ours.test) by mx.ours.test with esmtp (Exim 4.96)",
            "from mx.ours.test (HELO [127.0.0.1]) (192.0.2.55) by mx.ours.test with SMTP",
        ] {
            assert_eq!(line_of(&walked(&[line, FORGED])), outside(0, "192.0.2.55"), "{line}");
        }
    }

    #[test]
    fn what_we_made_has_no_border() {
        for lines in [
            &[MADE][..],
            &["from Debian-exim by mx.ours.test with local (Exim 4.96) id 1x"],
            &[INNER, MADE],
            &["by mail.ours.test (Postfix, from userid 1000) id C", AMAVIS],
            &["from mail.ours.test by mail.ours.test with LMTP id a==", MADE],
        ] {
            let border = walked(lines);
            assert_eq!(border.end, End::Inside(Inside::Made), "{lines:?}");
            assert_eq!(border.believed, lines.len());
        }
        let bounce = ["(qmail 5 invoked for bounce); 1 Jan 2026 00:00:00 -0000"];
        assert_eq!(walked(&bounce).end, End::NoLine);
        assert_eq!(walked(&[]).end, End::NoLine);
    }

    #[test]
    fn qmail_writes_two_lines_for_one_hop() {
        let lines = [
            "(qmail 9 invoked from network); 1 Jan 2026 00:00:00 -0000",
            "from unknown (HELO x) (192.0.2.55) by mx.ours.test with SMTP; 1 Jan 2026 00:00:00 -0000",
        ];
        assert_eq!(line_of(&walked(&lines)), outside(1, "192.0.2.55"));
    }

    #[test]
    fn a_foreign_line_on_top_and_a_foreign_line_below_an_inside_one() {
        let foreign = "from a.example (a.example [192.0.2.1]) by mx.theirs.test (Postfix) id X";
        assert_eq!(
            walked(&[foreign, OUTSIDE]),
            Border { believed: 0, relay: None, end: End::Foreign }
        );
        let border = walked(&[AMAVIS, foreign]);
        assert_eq!((border.believed, border.end), (1, End::Inside(Inside::Reinjected)));
    }

    #[test]
    fn a_user_who_authenticated_is_inside_wherever_the_client_is() {
        let line = "from pc (dsl.example [192.0.2.9]) by mx.ours.test (Postfix) with ESMTPSA id E";
        assert_eq!(walked(&[line, FORGED]).end, End::Inside(Inside::Authenticated));
        let theirs = "from pc (dsl.example [192.0.2.9]) by theirs.test (Postfix) with ESMTPSA id E";
        assert_eq!(walked(&[theirs]).end, End::Foreign);
    }

    #[test]
    fn of_several_addresses_the_outside_one_wins() {
        for line in [
            "from x ([127.0.0.1]) (unknown [192.0.2.55]) by mx.ours.test (Postfix) id A",
            "from x (unknown [198.51.100.7] [192.0.2.55]) by mx.ours.test (Postfix) id A",
            "from x ([203.0.113.5]) ([192.0.2.55]) by mx.ours.test (Postfix) id A",
            "from x ([127.0.0.1]) (192.0.2.55) by mx.ours.test with SMTP",
            "from x [127.0.0.1] [192.0.2.55] by mx.ours.test with SMTP",
            "from [192.0.2.55] (helo=x [127.0.0.1]) by mx.ours.test with esmtp (Exim 4.96)",
        ] {
            assert_eq!(line_of(&walked(&[line, FORGED])), outside(0, "192.0.2.55"), "{line}");
        }
        // A HELO in front is the client's word, whatever it is.
        let inside =
            "from [192.0.2.9] (pc.ours.test [198.51.100.9]) by mx.ours.test (Postfix) id A";
        assert_eq!(walked(&[inside]).end, End::Inside(Inside::Made));
    }

    /// amavis calls itself localhost.
    #[test]
    fn a_filter_under_an_inside_client_is_ours() {
        let back = "from localhost (localhost [127.0.0.1]) by mx.ours.test (Postfix) id B";
        let filter = "from mx.ours.test ([127.0.0.1]) by localhost (mx.ours.test [127.0.0.1]) \
                      (amavisd-new, port 10024) with ESMTP id 7QxK";
        assert_eq!(line_of(&walked(&[back, filter, OUTSIDE])), outside(2, "192.0.2.55"));
        let again = End::Inside(Inside::Reinjected);
        // Under a line without a client, or with a client outside, it is the peer's.
        assert_eq!(walked(&[MADE, filter, OUTSIDE]).end, again);
        assert_eq!(walked(&[filter, OUTSIDE]).end, End::Foreign);
        assert_eq!(line_of(&walked(&[OUTSIDE, filter])), outside(0, "192.0.2.55"));
        let fetched = "from pop.isp.example [192.0.2.3] by localhost with POP3 (fetchmail-6.3.26)";
        assert_eq!(walked(&[back, fetched]).end, again);
        let from_outside = filter.replace("[127.0.0.1]) by", "[192.0.2.3]) by");
        assert_eq!(walked(&[back, &from_outside, OUTSIDE]).end, again);
    }

    #[test]
    fn a_client_with_a_verified_name_of_ours_is_a_forgotten_host() {
        let ours = Domain::parse("ours.test").unwrap();
        let site = Site { domains: [ours].into(), ..site() };
        for (name, expected) in [
            ("app.ours.test", true),
            ("ours.test", true),
            ("app.notours.test", false),
            ("unknown", false),
        ] {
            let line = format!("from app.ours.test ({name} [192.0.2.9]) by mx.ours.test id A");
            let border = walked(&[&line]);
            assert_eq!(border.line().unwrap().is_named_ours(&site), expected, "{name}");
        }
        for line in [
            "from app.ours.test (app.ours.test [192.0.2.9] (may be forged)) by mx.ours.test id A",
            "from app.ours.test ([192.0.2.9]) by mx.ours.test id A",
        ] {
            assert!(!walked(&[line]).line().unwrap().is_named_ours(&site), "{line}");
        }
    }

    #[test]
    fn a_client_that_is_not_named_ends_the_walk() {
        for line in [
            "from a.example by mx.ours.test with SMTP id 5",
            "from a.example by mx.ours.test with LMTP id 5",
        ] {
            let border = walked(&[line, FORGED]);
            assert_eq!((border.believed, border.end), (1, End::Unsaid), "{line}");
        }
    }

    #[test]
    fn who_keeps_fetched_mail_is_not_who_sent_it() {
        let back = "from localhost (localhost [127.0.0.1]) by mx.ours.test (Postfix) id B";
        for with in ["POP3 (fetchmail-6.3.26)", "IMAP (fetchmail-6.4)", "POP3-SSL", "imaps"] {
            let fetched = format!("from pop.isp.example [192.0.2.3] by mx.ours.test with {with}");
            let border = walked(&[back, &fetched, OUTSIDE]);
            assert_eq!((border.believed, border.end), (2, End::Unsaid), "{with}");
        }
    }

    #[test]
    fn a_public_suffix_makes_no_site() {
        let gateway = "from gw.co.uk (gw.co.uk [203.0.113.5]) by mx.ours.test (Postfix) id D";
        let internal = "from scan (localhost [127.0.0.1]) by gw.co.uk (Filter) id H";
        let evil = "from bank.test (bank.test [192.0.2.1]) by evil.co.uk (Postfix) id X";
        let relay = "203.0.113.5".parse().unwrap();
        assert_eq!(walked(&[gateway, internal, evil]).end, End::BehindRelay { relay });
        let same = "from x.test (x.test [192.0.2.1]) by mx2.gw.co.uk (Filter) id X";
        assert_eq!(line_of(&walked(&[gateway, internal, same])), outside(2, "192.0.2.1"));
    }

    #[test]
    fn behind_a_relay_the_relays_own_line_counts() {
        let own = "from forged.example (unknown [192.0.2.77]) by gw.filter.test (Filter) id G";
        let border = walked(&[INNER, GATEWAY, own, FORGED]);
        assert_eq!(line_of(&border), outside(2, "192.0.2.77"));
        assert_eq!(border.relay, Some(1));
        assert!(border.line().unwrap().is_relays);
        // The relay hands it from one of its programs or hosts to another first.
        let internal = "from scan (localhost [127.0.0.1]) by gw.filter.test (Filter) id H";
        let other = "from forged.example (unknown [192.0.2.77]) by gw2.filter.test (Filter) id G";
        assert_eq!(line_of(&walked(&[GATEWAY, internal, own])), outside(2, "192.0.2.77"));
        assert_eq!(line_of(&walked(&[GATEWAY, internal, other])), outside(2, "192.0.2.77"));
        // Two relays in a row.
        let second = "from gw9.filter.test (gw9.filter.test [203.0.113.9]) by gw.filter.test id G";
        assert_eq!(line_of(&walked(&[GATEWAY, second, other])), outside(2, "192.0.2.77"));
    }

    #[test]
    fn a_relay_that_hides_its_client_is_a_gap() {
        let relay = "203.0.113.5".parse().unwrap();
        let internal = "from scan (localhost [127.0.0.1]) by gw.filter.test (Filter) id H";
        let silent = "from somewhere by gw.filter.test (Filter) id H";
        let peers = "from bank.test (bank.test [192.0.2.1]) by mx.evil.example (Postfix) id X";
        for lines in
            [&[GATEWAY, silent][..], &[GATEWAY, silent, FORGED], &[GATEWAY, internal, peers]]
        {
            assert_eq!(walked(lines).end, End::BehindRelay { relay }, "{lines:?}");
        }
    }

    #[test]
    fn what_nobody_gave_to_the_relay_the_relay_made() {
        let relay = "203.0.113.5".parse().unwrap();
        let made = "by gw.filter.test (Postfix) id H";
        let internal = "from scan (localhost [127.0.0.1]) by gw.filter.test (Filter) id H";
        let qmail = "(qmail 5 invoked for bounce); 1 Jan 2026 00:00:00 -0000";
        for lines in [
            &[GATEWAY][..],
            &[GATEWAY, made],
            &[GATEWAY, internal],
            &[GATEWAY, internal, made],
            &[GATEWAY, qmail],
        ] {
            assert_eq!(walked(lines).end, End::MadeByRelay { relay }, "{lines:?}");
        }
        let own = "from forged.example (unknown [192.0.2.77]) by gw.filter.test (Filter) id G";
        assert_eq!(line_of(&walked(&[GATEWAY, made, own])), outside(2, "192.0.2.77"));
    }

    #[test]
    fn a_private_client_is_a_forgotten_network() {
        for ip in
            ["10.1.2.3", "172.16.0.9", "192.168.7.7", "100.64.1.1", "IPv6:fd00::1", "IPv6:fe80::1"]
        {
            let line = format!("from app (app [{ip}]) by mx.ours.test (Postfix) id A");
            assert!(walked(&[&line]).line().unwrap().is_private(), "{ip}");
        }
        for ip in ["192.0.2.1", "100.128.0.1", "172.32.0.1", "IPv6:2001:db8::1"] {
            let line = format!("from app (app [{ip}]) by mx.ours.test (Postfix) id A");
            assert!(!walked(&[&line]).line().unwrap().is_private(), "{ip}");
        }
    }

    proptest! {
        /// Whatever a peer writes below the border line, the result is the same.
        #[test]
        fn a_peer_moves_the_border_by_nothing(below in proptest::collection::vec(
            prop_oneof![Just(OUTSIDE), Just(AMAVIS), Just(INNER), Just(MADE), Just(FORGED), Just(GATEWAY)], 0..6),
        ) {
            let lines = [&[INNER, AMAVIS, OUTSIDE][..], &below].concat();
            prop_assert_eq!(walked(&lines), walked(&[INNER, AMAVIS, OUTSIDE]));
        }
    }
}
