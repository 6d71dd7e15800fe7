//! The tap: what an inbound message says about itself, and which way it came in.
//!
//! Takes: `Seen`, what a tap knows at the end of data; `Site`. Gives: `Arrival`: the pending
//! record, and what is to be verified. Errors: none; what cannot be known is a `Gap`.
//! Bounds: `Inbound::within_limits`. Standards: RFC 5321 §4.4 (trace), RFC 3461 §4.4 (ENVID),
//! RFC 8601 §1.6 (trust boundary).
//!
//! An outside client is the border, and nothing in the header is believed. With a client of ours,
//! or a gateway of ours, the border walk says who gave the message to *it*: our MTA's own Received
//! line, which no tap gets to see, is put on top for that.

use std::net::IpAddr;

use bytes::Bytes;

use crate::judge::border::{End, Inside, Trace, walk};
use crate::judge::evidence::{Findings, Gap, GapCause};
use crate::judge::findings::{Identities, findings};
use crate::judge::original::SubjectKind;
use crate::judge::site::Site;
use crate::judge::subject::{Inbound, InboundId, SpamScore, State, TapKind, Way};
use crate::mail::address::{Address, ReversePath};
use crate::mail::author::Author;
use crate::mail::header::{Field, Fields};
use crate::mail::raw::split;
use crate::mail::received::{Client, From, Received};
use crate::mail::time::Timestamp;

/// What a tap knows of a message at the end of data.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which record is made of it.
    pub id: InboundId,
    /// Which kind of tap.
    pub tap: TapKind,
    /// Our host that takes it.
    pub host: String,
    /// Its id in the queue there.
    pub queue_id: Option<String>,
    /// When its transaction began.
    pub began: Timestamp,
    /// The end of data.
    pub arrived: Timestamp,
    /// The client's address; `None` when it is not known.
    pub client: Option<IpAddr>,
    /// What the client called itself.
    pub helo: String,
    /// Who authenticated, if anybody did.
    pub authenticated: Option<String>,
    /// The argument of MAIL.
    pub mail_from: ReversePath,
    /// ENVID, xtext decoded.
    pub envelope_id: Option<String>,
    /// The arguments of RCPT.
    pub recipients: Vec<Address>,
    /// Header, empty line, and the body or a part of it.
    pub message: Bytes,
    /// The field in which our spam filter writes its score, if it does.
    pub spam_field: Option<String>,
}

/// A message as it came in.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Its record, pending.
    pub record: Inbound,
    /// Whose SPF is to be asked: the client at the border, and what it called itself.
    pub spf: Option<(IpAddr, String)>,
    /// Whether what it proves of itself matters; not for what an inside host gave back.
    pub is_verified: bool,
    /// What a gateway's own Authentication-Results say, where they are believed.
    pub gateways: Option<Findings>,
    /// Whether an inside host handed it in without a user: lines of our own may stand in it.
    pub is_from_inside: bool,
}

/// Reads a message as it comes in.
pub fn arrival(seen: &Seen, site: &Site) -> Arrival {
    let fields = Fields::read(&seen.message);
    let route = route(seen, &fields, site);
    let first = |name: &str| fields.first(name).map(Field::addresses).unwrap_or_default();
    let score = seen.spam_field.as_deref().and_then(|name| fields.text(name));
    let record = Inbound {
        id: seen.id,
        tap: seen.tap,
        host: seen.host.trim_end_matches('.').to_ascii_lowercase(),
        queue_id: seen.queue_id.clone(),
        began: seen.began,
        arrived: seen.arrived,
        state: State::Pending,
        client: route.spf.as_ref().map(|(ip, _)| *ip),
        helo: route.spf.as_ref().map(|(_, helo)| helo.clone()).unwrap_or_default(),
        way: route.way,
        mail_from: seen.mail_from.clone(),
        envelope_id: seen.envelope_id.clone(),
        recipients: seen.recipients.clone(),
        message_ids: fields.all("message-id").flat_map(Field::message_ids).collect(),
        from: fields.all("from").flat_map(Field::addresses).collect(),
        sender: first("sender").into_iter().next(),
        reply_to: first("reply-to"),
        notify: first("disposition-notification-to"),
        kind: SubjectKind::of(&fields),
        spam: score.and_then(|text| score_in(&text)),
        findings: Vec::new(),
        gaps: route.gaps,
    };
    let record = record.within_limits();
    Arrival {
        is_verified: record.way != Way::Reinjected,
        gateways: gateways_results(seen, &record, site),
        spf: route.spf,
        is_from_inside: route.is_from_inside,
        record,
    }
}

/// How a message came to us.
struct Route {
    way: Way,
    spf: Option<(IpAddr, String)>,
    gaps: Vec<Gap>,
    is_from_inside: bool,
}

impl Route {
    fn new(way: Way) -> Route {
        Route { way, spf: None, gaps: Vec::new(), is_from_inside: false }
    }

    fn hidden(way: Way, detail: &str) -> Route {
        Route { gaps: vec![Gap::new(GapCause::BehindRelay, detail)], ..Route::new(way) }
    }
}

fn route(seen: &Seen, fields: &Fields<'_>, site: &Site) -> Route {
    let own = |sign: &str| Route::new(Way::OwnSubmission(sign.to_owned()));
    let client = seen.client.map(|ip| (ip, seen.helo.clone()));
    let is_inside = seen.client.is_some_and(|ip| site.is_inside(ip));
    if seen.authenticated.is_some() {
        // Why SPF all the same: an account that writes under a foreign address may be hijacked,
        // and that address's owner hardly lets this user's network send for him.
        return Route { spf: client.filter(|_| !is_inside), ..own("its client authenticated") };
    }
    let Some(ip) = seen.client else {
        return Route::hidden(Way::Outside, "the MTA does not say who its client was");
    };
    let received = fields.all("received").map(|field| Received::parse(&field.text()));
    let border = walk(std::iter::once(line_of_ours(ip, &seen.helo, site)).chain(received), site);
    let is_relay = site.is_trusted_relay(ip);
    let route = match border.end {
        End::Outside(line) if line.is_private() => {
            let detail = format!(
                "{} is a private address, and neither `local.networks` nor `tap.trusted_relays` \
                 names it",
                line.ip
            );
            Route::hidden(Way::BehindRelay(line.ip.to_string()), &detail)
        }
        End::Outside(line) if line.index == 0 || is_relay => {
            Route { spf: Some((line.ip, line.helo)), ..Route::new(Way::Outside) }
        }
        End::Inside(Inside::Made) => own("all its Received lines are ours"),
        End::Inside(Inside::Authenticated) => own("its client authenticated"),
        End::Inside(Inside::Reinjected) => Route::new(Way::Reinjected),
        _ if is_relay => {
            let detail = format!("{ip} does not say who its client was");
            Route::hidden(Way::BehindRelay(ip.to_string()), &detail)
        }
        // Why not the border line's client: a filter may have changed what was signed, and the
        // record of the first arrival knows more.
        _ => Route::new(Way::Reinjected),
    };
    Route { is_from_inside: is_inside, ..route }
}

/// The Received line that our MTA puts on top of the message, and shows no tap.
fn line_of_ours(ip: IpAddr, helo: &str, site: &Site) -> Received {
    let client = Client { ip, helo: helo.to_owned(), rdns: None, others: Vec::new() };
    let by = site.hosts.iter().next().cloned();
    Received { from: From::Client(client), by, ..Received::default() }
}

/// What the Authentication-Results of a gateway say, where they stand above its own Received line
/// and are believed.
fn gateways_results(seen: &Seen, record: &Inbound, site: &Site) -> Option<Findings> {
    let ip = seen.client.filter(|ip| site.is_trusted_relay(*ip))?;
    let by = site.hosts.iter().next()?;
    let line = format!("Received: from gateway (unknown [{ip}])\r\n\tby {by} with SMTP\r\n");
    let (raw, body) = split(&seen.message);
    let header = seen.message.len() - body.len();
    let bytes = [line.as_bytes(), seen.message.get(..header).unwrap_or_default()].concat();
    let fields = Fields::read(&bytes);
    let trace = Trace::of(&fields);
    let identities = Identities {
        mail_from: Some(record.mail_from.clone()),
        from: record.from.clone(),
        sender: record.sender.clone(),
        author_sign: Author::of(&raw).sign,
    };
    let border = trace.border(site);
    findings(&fields, &trace, &border, site, identities).0
}

/// The score in `5.1`, `Yes, score=5.1 required=…`, `default: False [5.10 / 15.00]; …`.
fn score_in(text: &str) -> Option<SpamScore> {
    let behind = |mark: char| text.split_once(mark).map(|(_, rest)| rest);
    let named = text.split_once("score=").map(|(_, rest)| rest);
    let rest = named.or_else(|| behind('[')).unwrap_or(text).trim_start();
    let end = rest.find(|c: char| !(c.is_ascii_digit() || "+-.".contains(c)));
    SpamScore::parse(rest.get(..end.unwrap_or(rest.len()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> Site {
        Site {
            networks: vec!["127.0.0.0/8".parse().unwrap()],
            trusted_relays: vec!["203.0.113.0/24".parse().unwrap()],
            hosts: ["mx.ours.test".into()].into(),
            authserv_ids: ["gw.filter.test".into()].into(),
            authserv_stripped: true,
            ..Site::default()
        }
    }

    fn seen(client: Option<&str>, message: &str) -> Seen {
        Seen {
            id: InboundId::from_u128(1),
            tap: TapKind::Milter,
            host: "MX.ours.test.".to_owned(),
            queue_id: Some("4ABC".to_owned()),
            began: Timestamp::from_millis(1),
            arrived: Timestamp::from_millis(2),
            client: client.map(|ip| ip.parse().unwrap()),
            helo: "host.far.example".to_owned(),
            authenticated: None,
            mail_from: ReversePath::Address(Address::parse("joe@far.example").unwrap()),
            envelope_id: None,
            recipients: vec![Address::parse("alice@ours.test").unwrap()],
            message: message.replace('\n', "\r\n").into(),
            spam_field: None,
        }
    }

    const OUTSIDE: &str = "Received: from x (unknown [192.0.2.55])\n by mx.ours.test id A\n";
    const FILTER: &str =
        "Received: from localhost (localhost [127.0.0.1])\n by mx.ours.test id B\n";
    const RELAYS: &str =
        "Received: from peer.far.example (peer [192.0.2.7])\n by gw.filter.test id G\n";
    const FORGED: &str = "Received: from x (x [127.0.0.1])\n by mx.ours.test id F\n";

    fn way(client: &str, header: &str) -> (Way, Option<String>, usize) {
        let arrival =
            arrival(&seen(Some(client), &format!("{header}From: x@y.example\n\n")), &site());
        let spf = arrival.spf.map(|(ip, helo)| format!("{ip} {helo}"));
        (arrival.record.way, spf, arrival.record.gaps.len())
    }

    #[test]
    fn an_outside_client_is_the_border_whatever_it_writes() {
        for header in ["", FORGED, &[FORGED, OUTSIDE].concat(), RELAYS] {
            let wanted = (Way::Outside, Some("192.0.2.55 host.far.example".to_owned()), 0);
            assert_eq!(way("192.0.2.55", header), wanted, "{header}");
        }
    }

    #[test]
    fn a_client_of_ours_submits_or_gives_back() {
        let own = Way::OwnSubmission("all its Received lines are ours".to_owned());
        assert_eq!(way("127.0.0.1", ""), (own.clone(), None, 0));
        assert_eq!(way("127.0.0.1", FORGED), (own, None, 0));
        for header in [OUTSIDE, RELAYS, &[FILTER, OUTSIDE].concat(), &[FILTER, RELAYS].concat()] {
            assert_eq!(way("127.0.0.1", header), (Way::Reinjected, None, 0), "{header}");
        }
    }

    #[test]
    fn behind_a_gateway_its_own_line_says_who_gave_it_the_message() {
        let wanted = (Way::Outside, Some("192.0.2.7 peer.far.example".to_owned()), 0);
        assert_eq!(way("203.0.113.5", RELAYS), wanted);
        let hidden = (Way::BehindRelay("203.0.113.5".to_owned()), None, 1);
        assert_eq!(way("203.0.113.5", ""), hidden);
        // A host of ours that nobody declared is no reason to fail anybody.
        assert_eq!(way("10.1.2.3", ""), (Way::BehindRelay("10.1.2.3".to_owned()), None, 1));
    }

    #[test]
    fn a_gateways_results_count_and_a_peers_never() {
        let results =
            "Authentication-Results: gw.filter.test; spf=pass smtp.mailfrom=joe@far.example\n";
        let found = |client: &str, header: &str| {
            arrival(&seen(Some(client), &format!("{header}From: x@y.example\n\n")), &site())
                .gateways
        };
        let believed = found("203.0.113.5", &[results, RELAYS].concat()).unwrap();
        assert_eq!(believed.spf.len(), 1);
        assert_eq!(found("203.0.113.5", &[RELAYS, results].concat()), None);
        assert_eq!(found("192.0.2.55", &[results, RELAYS].concat()), None);
    }

    #[test]
    fn a_user_of_ours_is_own_submission_and_still_asked_about() {
        let mut seen = seen(Some("192.0.2.55"), "From: x@bank.example\n\n");
        seen.authenticated = Some("alice".to_owned());
        let arrival = arrival(&seen, &site());
        assert_eq!(arrival.record.way, Way::OwnSubmission("its client authenticated".to_owned()));
        assert!(arrival.spf.is_some() && arrival.is_verified);
    }

    #[test]
    fn a_record_names_everything_that_a_response_could_know_it_by() {
        let message = "Message-ID: <one@far.example>\nFrom: Joe <joe@far.example>\nMessage-Id: \
            <two@far.example>\nSender: desk@far.example\nReply-To: a@b.example, c@d.example\n\
            Disposition-Notification-To: Receipts <r@far.example>\n\
            List-Id: <l.far.example>\nX-Spam-Score: 5.1\n\nbody";
        let mut seen = seen(Some("192.0.2.55"), message);
        seen.spam_field = Some("X-Spam-Score".to_owned());
        let record = arrival(&seen, &site()).record;
        assert_eq!(record.host, "mx.ours.test");
        assert_eq!(record.message_ids, ["one@far.example", "two@far.example"]);
        assert_eq!(record.reply_targets().count(), 1 + 1 + 1 + 2);
        assert!(record.takes_receipts_at(&Address::parse("r@far.example").unwrap()));
        assert!(record.kind.list.is_some());
        assert_eq!(record.spam, SpamScore::parse("5.1"));
        assert_eq!(record.state, State::Pending);
    }

    #[test]
    fn a_score_is_found_in_what_filters_write() {
        for text in
            ["5.1", "Yes, score=5.1 required=5.0 tests=X", "default: True [5.10 / 15.00]; Y"]
        {
            assert_eq!(score_in(text), SpamScore::parse("5.1"), "{text}");
        }
        assert_eq!(score_in("Yes"), None);
    }
}
