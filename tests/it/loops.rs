//! Mail that goes round is cut soon, and nothing else is.
//!
//! Goal: rings of forwarders end within the bounds of the documentation, whatever forwarders do to
//! the message; and no way of ordinary mail looks like a ring. Method: the reading, the memory and
//! the finding of the daemon over forwarders, lists and people made of functions; time stands still
//! or jumps. `REPLYGUARD_LOOP_MESSAGES` sets how many generated messages there are.

use std::time::Duration;

use crate::skipped::{corpus, without_corpus};
use replyguard::guard::loops::{Asking, LoopHealth, LoopMemory, Round, site_of};
use replyguard::judge::decision::{LoopFinding, LoopKind};
use replyguard::judge::fingerprint::FingerprintKey;
use replyguard::judge::loops::conversation::{AgentsFound, ConversationLimits};
use replyguard::judge::loops::{Alarm, alarm, loop_finding};
use replyguard::judge::policy::LoopLimits;
use replyguard::judge::site::Site;
use replyguard::judge::trace::{Arrival, Trace, TraceKey, lines};
use replyguard::judge::{Keys, read, read_alone};
use replyguard::mail::address::{Address, Domain, ForwardPath, ReversePath};
use replyguard::mail::envelope::{Client, Envelope, MailFrom, Parameters, Recipient};
use replyguard::mail::header::Completeness;
use replyguard::mail::message::Message;
use replyguard::mail::time::Timestamp;
use replyguard::store::sightings::Settings;
use ulid::Ulid;

pub const NOW: Timestamp = Timestamp::from_millis(1_795_282_739_000);
pub const SECOND: Duration = Duration::from_secs(1);
pub const HOUR: Duration = Duration::from_secs(3600);

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn path(text: &str) -> ForwardPath {
    ForwardPath::Address(address(text))
}

/// A guard without sockets.
pub struct Guard {
    memory: LoopMemory,
    site: String,
    name: &'static str,
    key: TraceKey,
    pub limits: LoopLimits,
    pub now: Timestamp,
    events: u64,
    ours: Site,
    /// The listener that mail comes by.
    pub listener: usize,
}

/// What became of one copy.
pub struct Passed {
    pub finding: Option<LoopFinding>,
    pub alarm: Option<Alarm>,
    pub round: Round,
    /// The message as it goes on.
    pub text: String,
}

impl Guard {
    pub fn new(name: &'static str, site: &str) -> Guard {
        let key = FingerprintKey::new([5; 32]);
        let limits = LoopLimits::default();
        Guard {
            memory: memory(key, site, &limits),
            site: site.to_owned(),
            name,
            key: TraceKey::new([6; 32]),
            limits,
            now: NOW,
            events: 0,
            ours: Site {
                domains: [Domain::parse("uni.example").unwrap()].into(),
                ..Site::default()
            },
            listener: 0,
        }
    }

    /// A restart: what is on disk is all that is known.
    pub fn restart(&mut self) {
        let saved = self.memory.saved();
        self.memory = memory(FingerprintKey::new([5; 32]), &self.site, &self.limits);
        self.memory.restore(&saved, self.now);
    }

    /// Another key of traces, and the one before it.
    pub fn replace_key(&mut self) {
        self.key = TraceKey::new([7; 32]).and_before([6; 32]);
    }

    /// Reads, asks, finds; the round is still open.
    pub fn take(&mut self, text: &str, from: &str, to: &[&str], client: &str) -> Vec<Passed> {
        self.events += 1;
        let reverse = match from {
            "" => ReversePath::Null,
            from => ReversePath::Address(address(from)),
        };
        let recipients: Vec<ForwardPath> = to.iter().map(|to| path(to)).collect();
        let envelope = Envelope {
            client: Client {
                ip: Some(client.parse().unwrap()),
                listener: self.listener,
                ..Client::default()
            },
            mail: MailFrom {
                path: reverse,
                path_text: format!("<{from}>"),
                parameters: Parameters::default(),
            },
            recipients: recipients
                .iter()
                .map(|path| Recipient {
                    path: path.clone(),
                    path_text: format!("<{path}>"),
                    parameters: Parameters::default(),
                })
                .collect(),
        };
        let fingerprint = FingerprintKey::new([5; 32]);
        let site = site_of(&self.site, self.listener);
        let keys = Keys { fingerprint: &fingerprint, trace: &self.key, loop_site: &site };
        let message = Message::new(text.as_bytes().to_vec(), Completeness::Whole);
        let case = read(&envelope, &message, &self.ours, &keys);
        let millis = u64::try_from(self.now.as_millis()).unwrap();
        let event = Ulid::from_parts(millis, u128::from(self.events)).to_string();
        let lap = u32::try_from(case.laps.len()).unwrap();
        let trace = Trace { site: &site, event: &event, lap, recipients: &recipients };
        let arrival = Arrival {
            helo: "mx.uni.example",
            ip: None,
            with: "ESMTP",
            tls: None,
            hostname: self.name,
            at: self.now,
        };
        let ours = String::from_utf8(lines(&self.key, &trace, &arrival, &[9; 256])).unwrap();
        let text = ours + text;
        let asking =
            Asking { trace_key: &self.key, limits: &self.limits.conversation, now: self.now };
        let each = recipients.iter().map(|recipient| {
            let (round, known) = self.memory.ask(&envelope, &case, recipient, &asking);
            let finding = loop_finding(&case, recipient, &known, &self.limits, self.now);
            let alarm = alarm(&case, &known, &self.limits);
            Passed { finding, alarm, round, text: text.clone() }
        });
        each.collect()
    }

    /// How its memory stands.
    pub fn health(&self) -> LoopHealth {
        self.memory.health()
    }

    /// Lets a message for one recipient pass: the message as it goes on, or why not.
    pub fn pass(&mut self, text: &str, from: &str, to: &str) -> Result<String, LoopFinding> {
        let passed = self.take(text, from, &[to], "127.0.0.1").remove(0);
        match passed.finding {
            Some(finding) => {
                passed.round.stop(self.now);
                Err(finding)
            }
            None => {
                passed.round.confirm(self.now);
                Ok(passed.text)
            }
        }
    }
}

/// The memory of a guard.
fn memory(key: FingerprintKey, site: &str, limits: &LoopLimits) -> LoopMemory {
    let settings = Settings { entries: 100_000, ..Settings::default() };
    let next_hop = vec!["192.0.2.25".parse().unwrap()];
    LoopMemory::new(key, site, &settings, &limits.conversation, next_hop)
}

pub const LETTER: &str = "From: Ann <ann@shop.example>\r\nTo: bob@uni.example\r\n\
    Subject: Minutes\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\n\
    Message-ID: <minutes@shop.example>\r\n\r\nDear Bob,\r\nhere they are.\r\nAnn\r\n";

pub const VACATION: &str = include_str!("../captures/vacation-pigeonhole-msgid.eml");

/// A server takes a message: its line on top, with a queue id of its own.
pub fn hop(text: &str, host: &str, to: &str, id: usize) -> String {
    format!(
        "Received: from x.example (x.example [192.0.2.7])\r\n\tby {host} (Postfix) with ESMTP id \
         {id:010X}\r\n\tfor <{to}>; Sat, 21 Nov 2026 10:00:00 +0000 (UTC)\r\n{text}"
    )
}

/// A message as a server of the outside first took it.
pub fn arrived(text: &str) -> String {
    hop(text, "mx.uni.example", "bob@uni.example", 0)
}

/// A forwarder's doings with the message.
type Forwarder = fn(String, usize) -> String;

fn keeps(text: String, _: usize) -> String {
    text
}

/// The fields of a header, each with its folds.
fn fields(header: &str) -> Vec<String> {
    let mut fields: Vec<String> = Vec::new();
    for line in header.split("\r\n") {
        match fields.last_mut().filter(|_| line.starts_with([' ', '\t'])) {
            Some(field) => field.push_str(&format!("\r\n{line}")),
            None => fields.push(line.to_owned()),
        }
    }
    fields
}

/// Takes away both lines of ours.
pub fn strips(text: String, _: usize) -> String {
    let (header, body) = text.split_once("\r\n\r\n").unwrap();
    let mut fields = fields(header);
    fields.retain(|field| !field.starts_with("X-Replyguard") && !field.contains("(replyguard)"));
    format!("{}\r\n\r\n{body}", fields.join("\r\n"))
}

/// The same, with a new Message-ID and Date, a tag before the subject, a banner and a disclaimer.
fn rewrites(text: String, lap: usize) -> String {
    let text = strips(text, lap);
    let (header, body) = text.split_once("\r\n\r\n").unwrap();
    let rewritten = fields(header).into_iter().map(|field| match field.split_once(": ") {
        Some(("Message-ID" | "Message-Id", _)) => format!("Message-ID: <{lap}@forward.example>"),
        Some(("Date", _)) => format!("Date: Sat, 21 Nov 2026 10:00:{:02} +0000", lap % 60),
        Some(("Subject", subject)) => format!("Subject: [EXT] {subject}"),
        _ => field,
    });
    let rewritten: Vec<String> = rewritten.collect();
    let rewritten = rewritten.join("\r\n");
    format!(
        "{rewritten}\r\n\r\nCAUTION: this came from outside ({lap}).\r\n{body}-- \r\nConfidential, {lap}.\r\n"
    )
}

/// How many copies for one recipient a guard lets pass and holds, with what it finds: `legs` are
/// the mailboxes that it relays to in turn, each of which forwards.
fn ring(
    guard: &mut Guard,
    first: &str,
    from: &str,
    legs: &[&str],
    forwarder: Forwarder,
) -> (usize, LoopFinding) {
    let mut text = first.to_owned();
    for transit in 1..40 {
        let to = legs[(transit - 1) % legs.len()];
        match guard.pass(&text, from, to) {
            Ok(on) => text = forwarder(on, transit),
            Err(finding) => return (transit, finding),
        }
        text = hop(&text, "mx.forward.example", to, transit);
        guard.now = guard.now.plus(SECOND);
    }
    panic!("it goes round for ever");
}

#[test]
fn a_ring_that_keeps_our_trace_is_cut_at_the_third_transit() {
    for legs in [&["efwd@ex.example"][..], &["efwd@ex.example", "pfwd@uni.example"]] {
        let mut guard = Guard::new("guard-1", "here");
        let (transit, finding) =
            ring(&mut guard, &arrived(LETTER), "ann@shop.example", legs, keeps);
        assert_eq!((transit, finding.kind), (3, LoopKind::Lap), "{legs:?}");
        assert_eq!(finding.between[0], "efwd@ex.example");
        assert_eq!((finding.first_seen, finding.stopped), (NOW, 1));
    }
    let mut guard = Guard::new("guard-1", "here");
    let legs = ["a@a.example", "b@b.example", "c@c.example"];
    let (transit, _) = ring(&mut guard, &arrived(LETTER), "ann@shop.example", &legs, keeps);
    assert_eq!(transit, 4, "of three, each once");
}

#[test]
fn a_response_is_cut_when_it_comes_back() {
    let mut guard = Guard::new("guard-1", "here");
    let (transit, _) = ring(&mut guard, VACATION, "", &["efwd@ex.example"], keeps);
    assert_eq!(transit, 2);
}

#[test]
fn a_ring_that_takes_our_lines_away_is_cut_at_the_fourth() {
    for first in [LETTER.to_owned(), arrived(LETTER), VACATION.to_owned()] {
        let mut guard = Guard::new("guard-1", "here");
        let (transit, finding) =
            ring(&mut guard, &first, "ann@shop.example", &["efwd@ex.example"], strips);
        assert_eq!((transit, finding.kind), (4, LoopKind::Progression));
        assert_eq!((finding.laps, finding.first_seen), (3, NOW));
    }
    let mut guard = Guard::new("guard-1", "here");
    let legs = ["efwd@ex.example", "pfwd@uni.example"];
    let (transit, _) = ring(&mut guard, &arrived(LETTER), "ann@shop.example", &legs, strips);
    assert_eq!(transit, 7, "the fourth for the first of two");
}

#[test]
fn a_ring_that_rewrites_the_message_is_cut_at_the_sixth_at_the_latest() {
    for (first, cut) in [(LETTER.to_owned(), 6), (arrived(LETTER), 5), (VACATION.to_owned(), 6)] {
        let mut guard = Guard::new("guard-1", "here");
        let (transit, finding) =
            ring(&mut guard, &first, "ann@shop.example", &["efwd@ex.example"], rewrites);
        assert!(transit <= cut, "{transit}");
        assert_eq!(finding.kind, LoopKind::Progression);
    }
}

/// A mailbox that every message for it goes round in: none hides the others.
#[test]
fn many_rings_at_once_are_all_cut() {
    let mut guard = Guard::new("guard-1", "here");
    let mut texts: Vec<String> =
        (0..50).map(|n| hop(LETTER, "mx.uni.example", "bob@uni.example", 1000 + n)).collect();
    for transit in 1..7 {
        let mut next = Vec::new();
        for (n, text) in texts.iter().enumerate() {
            if let Ok(on) = guard.pass(text, "ann@shop.example", "efwd@ex.example") {
                let on = rewrites(on, transit);
                next.push(hop(&on, "mx.forward.example", "efwd@ex.example", 100 * transit + n));
            }
        }
        texts = next;
    }
    assert!(texts.is_empty(), "{} still go round", texts.len());
}

/// Two guards of one site share key and site, but not their memory: the trace is enough.
#[test]
fn two_guards_of_one_site_in_one_ring_know_each_others_trace() {
    let mut guards = [Guard::new("guard-1", "here"), Guard::new("guard-2", "here")];
    let legs = ["efwd@ex.example", "pfwd@uni.example"];
    let mut text = arrived(LETTER);
    for transit in 0..10 {
        match guards[transit % 2].pass(&text, "ann@shop.example", legs[transit % 2]) {
            Ok(on) => text = hop(&on, "mx.forward.example", legs[transit % 2], transit),
            Err(finding) => {
                assert_eq!((transit + 1, finding.kind), (3, LoopKind::Lap));
                return;
            }
        }
    }
    panic!("it goes round for ever");
}

/// A restart in the middle of a ring: the trace is in the message.
#[test]
fn a_ring_is_cut_after_a_restart() {
    let mut text = arrived(LETTER);
    for transit in 1..10 {
        let mut fresh = Guard::new("guard-1", "here");
        match fresh.pass(&text, "ann@shop.example", "efwd@ex.example") {
            Ok(on) => text = hop(&on, "mx.forward.example", "efwd@ex.example", transit),
            Err(finding) => {
                assert_eq!((transit, finding.kind), (3, LoopKind::Lap));
                return;
            }
        }
    }
    panic!("it goes round for ever");
}

// From here on: nothing is held.

/// Fails when a copy is held.
pub fn passes(guard: &mut Guard, text: &str, from: &str, to: &str) -> String {
    guard.pass(text, from, to).unwrap_or_else(|finding| panic!("held for {to}: {finding:?}"))
}

#[test]
fn guards_in_series_let_all_mail_pass() {
    for letter in [arrived(LETTER), VACATION.to_owned()] {
        // Two guards of different sites, and a scanner that hands the mail to another listener.
        let mut guards = [
            Guard::new("guard-1", "uni/25"),
            Guard::new("guard-2", "hub/25"),
            Guard::new("guard-1", "uni/26"),
        ];
        let mut text = letter;
        for guard in &mut guards {
            text = passes(guard, &text, "ann@shop.example", "joe@bank.example");
            text = hop(&text, "scanner.example", "joe@bank.example", 3);
        }
    }
    // The same guard in two places of one path; and behind it somebody forwards.
    let mut guard = Guard::new("guard-1", "here");
    let mut text = arrived(LETTER);
    for (place, to) in
        ["bob@uni.example", "bob@uni.example", "bob@home.example", "bob@home.example"]
            .iter()
            .enumerate()
    {
        text = passes(&mut guard, &text, "ann@shop.example", to);
        text = hop(&text, "scanner.example", to, place);
    }
}

#[test]
fn a_list_may_have_ten_thousand_members() {
    let mut guard = Guard::new("guard-1", "here");
    let members: Vec<String> =
        (0..10_000).map(|n| format!("member{n}@m{}.example", n % 97)).collect();
    let text = hop(&format!("List-Id: <all.uni.example>\r\n{LETTER}"), "mx", "all@uni.example", 1);
    for some in members.chunks(50) {
        let some: Vec<&str> = some.iter().map(String::as_str).collect();
        for passed in guard.take(&text, "all-bounces@uni.example", &some, "127.0.0.1") {
            assert_eq!(passed.finding, None);
            passed.round.confirm(NOW);
        }
    }
}

#[test]
fn copies_by_several_paths_are_no_loop() {
    let mut guard = Guard::new("guard-1", "here");
    // To him, and through a list he is on.
    let direct = arrived(LETTER);
    passes(&mut guard, &direct, "ann@shop.example", "joe@bank.example");
    let list = hop(&hop(&direct, "list", "all@uni.example", 7), "list", "all@uni.example", 8);
    passes(&mut guard, &list, "all-bounces@uni.example", "joe@bank.example");
    // Fail-over paths of 5, 6, 5, 6 hops, and what follows.
    let path =
        |hops: usize| (1..hops).fold(direct.clone(), |text, n| hop(&text, "h", "x@x.example", n));
    for hops in [5, 6, 5, 6, 5, 6, 6, 5, 5, 6] {
        passes(&mut guard, &path(hops), "ann@shop.example", "eve@bank.example");
    }
    // Lists inside one another, each with a member who is on all of them.
    let mut nested = format!("List-Id: <all.uni.example>\r\n{direct}");
    for depth in 1..5 {
        passes(&mut guard, &nested, "all-bounces@uni.example", "dean@bank.example");
        nested = hop(&nested, "list.uni.example", "next@uni.example", depth);
    }
}

#[test]
fn a_client_may_try_again_as_often_as_it_likes() {
    let mut guard = Guard::new("guard-1", "here");
    for _ in 0..10 {
        let tried = guard.take(&arrived(LETTER), "ann@shop.example", &["joe@bank.example"], "::1");
        assert_eq!(tried[0].finding, None);
        guard.now = guard.now.plus(60 * SECOND);
    }
    // And twice the same on its way, because the client did not wait for our answer.
    let first = guard.take(&arrived(LETTER), "ann@shop.example", &["joe@bank.example"], "::1");
    passes(&mut guard, &arrived(LETTER), "ann@shop.example", "joe@bank.example");
    drop(first);
}

#[test]
fn five_hundred_messages_in_one_thread_on_one_day() {
    let mut guard = Guard::new("guard-1", "here");
    for n in 0..500 {
        let (author, other) = if n % 2 == 0 { ("ann", "joe") } else { ("joe", "ann") };
        let text = format!(
            "From: {author}@uni.example\r\nTo: {other}@bank.example\r\nSubject: Re: Lunch\r\n\
             References: <lunch@uni.example> <{}@uni.example>\r\nMessage-ID: <{n}@uni.example>\r\n\
             \r\nWhat about {n}?\r\n",
            n - (n > 0) as i32
        );
        let to = format!("{other}@bank.example");
        let from = format!("{author}@uni.example");
        let passed = guard.take(&arrived(&text), &from, &[&to], "127.0.0.1").remove(0);
        assert_eq!((passed.finding, passed.alarm), (None, None));
        passed.round.confirm(guard.now);
        guard.now = guard.now.plus(24 * HOUR / 500);
    }
}

/// Somebody on holiday is copied on a thread of forty others.
#[test]
fn a_responder_in_a_busy_thread_answers_everybody_once() {
    let mut guard = Guard::new("guard-1", "here");
    for n in 0..40 {
        let text = format!(
            "From: bob@uni.example\r\nTo: p{n}@bank.example\r\nSubject: Auto: Re: Budget\r\n\
             Auto-Submitted: auto-replied (vacation)\r\nIn-Reply-To: <{n}@bank.example>\r\n\
             References: <budget@bank.example> <{n}@bank.example>\r\n\
             Message-ID: <vacation-{n}@uni.example>\r\n\r\nI am away.\r\n"
        );
        passes(&mut guard, &text, "", &format!("p{n}@bank.example"));
        guard.now = guard.now.plus(300 * SECOND);
    }
}

#[test]
fn a_newsletter_may_be_sent_again_every_week() {
    let mut guard = Guard::new("guard-1", "here");
    for week in 0..20 {
        passes(&mut guard, &arrived(LETTER), "news@uni.example", "joe@bank.example");
        let longer = hop(&arrived(LETTER), "relay", "x@x.example", week);
        passes(&mut guard, &longer, "news@uni.example", "joe@bank.example");
        guard.now = guard.now.plus(7 * 24 * HOUR);
    }
}

/// How many generated messages there are: a few here, a million where somebody waits for them.
fn generated() -> usize {
    std::env::var("REPLYGUARD_LOOP_MESSAGES").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000)
}

/// A small generator of chance; the seed makes it the same everywhere.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

#[test]
fn generated_mail_with_equal_bodies_over_varying_paths() {
    let mut guard = Guard::new("guard-1", "here");
    let mut chance = Chance(1);
    for n in 0..generated() {
        let (kind, body) = [
            ("Cron <backup@db1>", "done"),
            ("ALERT disk full on db1", "Disk /var is full."),
            ("Build passed", "All tests passed."),
            ("Reset your password", "Follow the link to reset your password."),
        ][chance.below(4)];
        // Some write no Message-ID, some no Date, and some the same ones again and again.
        let id =
            [String::new(), format!("Message-ID: <{n}@db1.example>\r\n")][chance.below(2)].clone();
        let date = ["", "Date: Sat, 21 Nov 2026 10:00:00 +0000\r\n"][chance.below(2)];
        let mut text = format!(
            "From: root@db1.example\r\nTo: admin@uni.example\r\nSubject: {kind}\r\n\
             Auto-Submitted: auto-generated\r\n{date}{id}\r\n{body}\r\n"
        );
        for hops in 0..=chance.below(6) {
            text = hop(&text, "mx.uni.example", "admin@uni.example", n * 10 + hops);
        }
        let to = format!("admin{}@ops.example", chance.below(20));
        passes(&mut guard, &text, "root@db1.example", &to);
        guard.now = guard.now.plus(SECOND);
    }
}

#[test]
fn a_person_may_send_a_message_on_as_it_is() {
    let mut guard = Guard::new("guard-1", "here");
    let mut text = arrived(LETTER);
    let people = ["bob@uni.example", "eve@uni.example"];
    for n in 0..6 {
        text = passes(&mut guard, &text, people[n % 2], people[(n + 1) % 2]);
        text = hop(&text, "mx.uni.example", people[(n + 1) % 2], n);
        text = format!("Resent-From: {}\r\nResent-Date: today\r\n{text}", people[(n + 1) % 2]);
        guard.now = guard.now.plus(HOUR);
    }
    // And the same message, again and again, to the same person.
    for n in 0..10 {
        let again =
            format!("Resent-From: bob@uni.example\r\nResent-Date: {n}\r\n{}", arrived(LETTER));
        passes(&mut guard, &again, "bob@uni.example", "joe@bank.example");
    }
}

fn messages(folder: &std::path::Path) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|found| found == "eml") {
                found.push(std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// For whom a message says it is.
fn named_recipient(message: &Message) -> String {
    let view = message.view();
    let mut to = view.fields.all("to").flat_map(|field| field.addresses());
    to.next().map_or("joe@bank.example".to_owned(), |to| to.to_string())
}

/// Goal: real mail, all of it sent twice, is held nowhere, of whatever kind the finding. The weak
/// fingerprint is measured on it: how many messages that differ it takes for one.
///
/// Method: one message each quarter of an hour, to the first address of its To. Why not all at
/// once: the corpus has tests of other programs, a dozen answers of one person to another.
#[test]
fn the_whole_corpus_sent_twice() {
    let (folder, captures) = (corpus("messages"), corpus("mta"));
    if !folder.is_dir() {
        return without_corpus(&format!("no {}", folder.display()));
    }
    let mut guard = Guard::new("guard-1", "here");
    let key = FingerprintKey::new([5; 32]);
    let mut joined = std::collections::BTreeMap::<_, std::collections::BTreeSet<_>>::new();
    let mut all = messages(&folder);
    let real = all.len();
    all.extend(messages(&captures));
    let mut held = std::collections::BTreeMap::<_, Vec<String>>::new();
    for _ in 0..2 {
        for (number, bytes) in all.iter().enumerate() {
            let text = String::from_utf8_lossy(bytes);
            let message = Message::new(bytes.clone(), Completeness::Whole);
            let case = read_alone(&message, &Site::default(), &key);
            let to = named_recipient(&message);
            if let Err(finding) = guard.pass(&text, "", &to) {
                held.entry(finding.kind.as_str()).or_default().push(format!("{to} {finding:?}"));
            }
            if number < real {
                joined.entry(case.weak).or_default().insert(case.fingerprint);
            }
            guard.now = guard.now.plus(HOUR / 4);
        }
    }
    println!("the corpus sent twice: {} messages, held {}", 2 * all.len(), held.len());
    assert!(held.is_empty(), "{held:#?}");
    let distinct: usize = joined.values().map(std::collections::BTreeSet::len).sum();
    let groups: Vec<usize> =
        joined.values().map(std::collections::BTreeSet::len).filter(|n| *n > 1).collect();
    println!(
        "weak fingerprint: {distinct} different messages, {} keys; joined: {groups:?}",
        joined.len()
    );
    assert!(distinct - joined.len() <= distinct / 50, "it joins more than 2 %");
}

/// Goal: one strong fingerprint at every hop of real forwards. Method: the captures of Postfix,
/// Exim and Pigeonhole, and of a ring at each of its twenty hops.
#[test]
fn real_forwards_keep_their_fingerprint() {
    let key = FingerprintKey::new([5; 32]);
    let case = |bytes: &[u8]| {
        read_alone(&Message::new(bytes.to_vec(), Completeness::Whole), &Site::default(), &key)
    };
    macro_rules! capture {
        ($name:literal) => {
            include_bytes!(concat!("../captures/", $name)).as_slice()
        };
    }
    let paths: [&[&[u8]]; 2] = [
        &[capture!("forward-postfix-alias-hop1.eml"), capture!("forward-exim-redirect-hop1.eml")],
        &[
            capture!("forward-sieve-hop.1.eml"),
            capture!("forward-sieve-hop.2.eml"),
            capture!("forward-sieve-final-in-bob-inbox.eml"),
        ],
    ];
    for path in paths {
        let first = case(path[0]);
        for (index, capture) in path.iter().enumerate() {
            let case = case(capture);
            assert_eq!(case.fingerprint, first.fingerprint, "{index}");
            assert_eq!(case.weak, first.weak, "{index}");
            assert!(index == 0 || case.hops > first.hops);
        }
    }
    // A ring's last hop holds all before it: taking the top off gives each of them.
    let ring = std::str::from_utf8(capture!("loop-hop20.eml")).unwrap();
    let last = case(ring.as_bytes());
    let mut rest = ring;
    let mut hops = 0;
    while let Some(at) = rest[1..].find("Authentication-Results: mx.local.test") {
        rest = &rest[at + 1..];
        let earlier = case(rest.as_bytes());
        assert_eq!((earlier.fingerprint, earlier.weak), (last.fingerprint, last.weak));
        hops += 1;
    }
    assert!(hops >= 15, "{hops}");
    assert_ne!(case(paths[0][0]).fingerprint, case(paths[1][0]).fingerprint);
}

// Conversations, bounces, misrouting.

/// An automatic reply of `own`, to a message with this id, in a thread that began with `root`.
pub fn reply(own: &str, other: &str, n: usize, answers: &str, root: &str) -> String {
    format!(
        "From: {own}\r\nTo: {other}\r\nSubject: Auto: Auto: hello\r\n\
         Auto-Submitted: auto-replied (vacation)\r\nIn-Reply-To: <{answers}>\r\n\
         References: <{root}> <{answers}>\r\nMessage-ID: <v{n}-{own}>\r\n\r\nAway since {n}.\r\n"
    )
}

/// How many replies two responders send before they are ended, one every `pause`.
fn talk(pause: Duration, other: impl Fn(usize) -> String, rooted: bool) -> (usize, LoopFinding) {
    let mut guard = Guard::new("guard-1", "here");
    let own = "bob@uni.example";
    for n in 0..200 {
        let (answered, root) = match rooted {
            true => (format!("v{}-{own}", n.max(1) - 1), "hello@shop.example".to_owned()),
            false => (format!("{n}@shop.example"), format!("{n}@shop.example")),
        };
        let other = other(n);
        if let Err(finding) = guard.pass(&reply(own, &other, n, &answered, &root), "", &other) {
            return (n, finding);
        }
        guard.now = guard.now.plus(pause);
    }
    panic!("they talk for ever");
}

#[test]
fn responders_that_answer_one_another_are_ended() {
    let same = |_| "ann@shop.example".to_owned();
    let changing = |n| format!("ann+{n}@shop.example");
    for (sent, pause, rooted) in [(4, SECOND, false), (12, HOUR, false), (6, HOUR, true)] {
        let (held, finding) = talk(pause, same, rooted);
        assert_eq!((held, finding.kind), (sent, LoopKind::Conversation));
        assert_eq!(finding.between, ["ann@shop.example", "bob@uni.example"]);
        assert_eq!(finding.first_seen, NOW);
    }
    // An address that changes with every message: by its domain, or by the thread.
    assert_eq!(talk(SECOND, changing, false).0, 60);
    assert_eq!(talk(SECOND, changing, true).0, 6);
}

#[test]
fn bounces_are_no_conversation() {
    let bounce = include_str!("../captures/bounce-postfix-relay-unknown.eml");
    let mut guard = Guard::new("guard-1", "here");
    for n in 0..200 {
        let text = bounce.replace("Message-Id: <", &format!("Message-Id: <{n}"));
        passes(&mut guard, &text, "", "ann@shop.example");
    }
}

/// Two programs that write like people: heard of, and held only where somebody wants it.
#[test]
fn agents_that_answer_one_another_are_heard_of() {
    let mut guard = Guard::new("guard-1", "here");
    let text = |n: usize| {
        format!(
            "From: Robin <robin@uni.example>\r\nTo: sam@shop.example\r\nSubject: Re: Offer\r\n\
             References: <offer@shop.example> <{n}@shop.example>\r\n\
             Message-ID: <{n}@uni.example>\r\n\r\nThank you! What about {n}?\r\n"
        )
    };
    let mut alarms = Vec::new();
    for n in 0..100 {
        let passed = guard
            .take(&arrived(&text(n)), "robin@uni.example", &["sam@shop.example"], "127.0.0.1")
            .remove(0);
        assert_eq!(passed.finding, None);
        if passed.alarm.is_some() {
            alarms.push(n);
        }
        passed.round.confirm(guard.now);
        guard.now = guard.now.plus(5 * SECOND);
    }
    assert_eq!(alarms, (60..100).collect::<Vec<_>>());
    guard.limits.conversation =
        ConversationLimits { agents_found: AgentsFound::Hold, ..ConversationLimits::default() };
    let held = guard.pass(&arrived(&text(100)), "robin@uni.example", "sam@shop.example");
    assert_eq!(held.unwrap_err().kind, LoopKind::Conversation);
}

/// The Oxford case: a mailbox forwards to a provider that refuses, and the bounce is forwarded too.
#[test]
fn the_bounce_of_a_forward_is_ended() {
    let mut guard = Guard::new("guard-1", "here");
    let delivered = format!("Delivered-To: bob@uni.example\r\n{}", arrived(LETTER));
    let forwarded = passes(&mut guard, &delivered, "bob@uni.example", "bob@provider.example");
    let bounce = |embedded: &str| {
        format!(
            "From: Mail Delivery System <MAILER-DAEMON@uni.example>\r\nTo: bob@uni.example\r\n\
             Subject: Undelivered Mail Returned to Sender\r\nAuto-Submitted: auto-replied\r\n\
             MIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=delivery-status;\r\n\
             \tboundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nIt was refused.\r\n--b\r\n\
             Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.uni.example\r\n\r\n\
             Final-Recipient: rfc822; bob@provider.example\r\nAction: failed\r\nStatus: 5.7.1\r\n\
             \r\n--b\r\nContent-Type: message/rfc822\r\n\r\n{embedded}\r\n--b--\r\n"
        )
    };
    // On its way to the mailbox that forwards, and forwarded by it already.
    let finding = guard.pass(&bounce(&forwarded), "", "bob@uni.example").unwrap_err();
    assert_eq!(finding.kind, LoopKind::ForwardedBounce);
    assert_eq!(finding.between, ["bob@uni.example", "bob@provider.example"]);
    let again = format!("Delivered-To: bob@uni.example\r\n{}", bounce(&forwarded));
    let finding = guard.pass(&again, "", "bob@provider.example").unwrap_err();
    assert_eq!(finding.kind, LoopKind::ForwardedBounce);
    // Nobody forwards here: a bounce goes to who wrote, or to another mailbox, or to a person who
    // sent the message on himself.
    passes(&mut guard, &bounce(&forwarded), "", "ann@shop.example");
    passes(&mut guard, &bounce(&arrived(LETTER)), "", "bob@uni.example");
    let by_hand = format!("Resent-From: bob@uni.example\r\n{forwarded}");
    passes(&mut guard, &bounce(&by_hand), "", "bob@uni.example");
    // Who wrote to himself, through an alias of his.
    let told = bounce(&arrived(LETTER)).replace("To: bob@uni", "To: bob@provider");
    let told = format!("Delivered-To: bob@uni.example\r\n{told}");
    passes(&mut guard, &told, "", "bob@provider.example");
}

#[test]
fn a_next_hop_that_sends_everything_back_is_named() {
    let mut guard = Guard::new("guard-1", "here");
    let mut kinds = Vec::new();
    for n in 0..30 {
        let mut text = hop(LETTER, "mx.uni.example", "joe@bank.example", n);
        text = text.replace("<minutes@", &format!("<minutes{n}@"));
        for _ in 0..3 {
            let passed = guard
                .take(&text, "ann@shop.example", &["joe@bank.example"], "192.0.2.25")
                .remove(0);
            text = passed.text;
            match passed.finding {
                Some(finding) => kinds.push(finding.kind),
                None => passed.round.confirm(guard.now),
            }
            guard.now = guard.now.plus(Duration::from_millis(100));
        }
    }
    let laps = kinds.iter().take_while(|kind| **kind == LoopKind::Lap).count();
    assert!((1..=10).contains(&laps), "{kinds:?}");
    assert!(kinds[laps..].iter().all(|kind| *kind == LoopKind::Misrouting), "{kinds:?}");
}
