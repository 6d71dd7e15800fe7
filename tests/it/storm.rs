//! The Oxford storm: a list whose members all answer, and some forward to a provider that refuses.
//!
//! Goal: it ends within the limits, nothing but it is held, and the memory stays flat. Method: a
//! list, responders without any memory of their own, and forwarders made of functions; the reading,
//! the memory and the finding of the daemon. The seed makes it the same everywhere.
//! `REPLYGUARD_STORM` sets how many messages are handed in: `scripts/storm` does a million and
//! draws the picture of docs/loops.md.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use replyguard::cmd::demo::picture::columns;
use replyguard::judge::decision::LoopKind;
use replyguard::mail::time::Timestamp;

use crate::loops::{Chance, Guard, hop};

const LIST: &str = "all@lists.example";
const RESPONDERS: usize = 100;
const FORWARDERS: usize = 20;
const HOUR: Duration = Duration::from_secs(3600);

/// What happened in one hour.
#[derive(Clone, Copy, Debug, Default)]
struct Hour {
    handed_in: usize,
    passed: usize,
    held: usize,
}

struct Storm {
    guard: Guard,
    began: Timestamp,
    chance: Chance,
    hours: Vec<Hour>,
    /// Replies that each responder got through, by day.
    answers: BTreeMap<(usize, u64), usize>,
    number: usize,
    /// Posts that wait for the list to send them out: the id of each.
    posts: VecDeque<String>,
}

impl Storm {
    fn new(seed: u64) -> Storm {
        let guard = Guard::new("guard-1", "here");
        let began = guard.now;
        let chance = Chance(seed);
        let (hours, answers, posts) = (Vec::new(), BTreeMap::new(), VecDeque::new());
        Storm { guard, began, chance, hours, answers, number: 0, posts }
    }

    fn handed_in(&self) -> usize {
        self.hours.iter().map(|hour| hour.handed_in).sum()
    }

    /// Hands a message to the guard; whether it passed.
    fn hand_in(&mut self, text: &str, from: &str, to: &str, held_as: Option<LoopKind>) -> bool {
        let hour = self.guard.now.since(self.began).as_secs() / HOUR.as_secs();
        let hour = usize::try_from(hour).unwrap();
        if self.hours.len() <= hour {
            self.hours.resize(hour + 1, Hour::default());
        }
        let result = self.guard.pass(text, from, to);
        let of = &mut self.hours[hour];
        of.handed_in += 1;
        match result {
            Ok(_) => of.passed += 1,
            Err(finding) => {
                of.held += 1;
                assert_eq!(Some(finding.kind), held_as, "{finding:?}");
                return false;
            }
        }
        true
    }

    /// The list sends one post to everybody: they answer, and they forward.
    fn explode(&mut self, post: &str) {
        for _ in 0..RESPONDERS {
            let who = self.chance.below(RESPONDERS);
            self.number += 1;
            let id = format!("v{}@uni.example", self.number);
            let text = format!(
                "From: m{who}@uni.example\r\nTo: {LIST}\r\nSubject: Auto: Re: Hello all\r\n\
                 Auto-Submitted: auto-replied (vacation)\r\nIn-Reply-To: <{post}>\r\n\
                 References: <first@lists.example> <{post}>\r\nMessage-ID: <{id}>\r\n\r\n\
                 I am away ({}).\r\n",
                self.number
            );
            let text = hop(&text, "mx.uni.example", LIST, self.number);
            if self.hand_in(&text, "", LIST, Some(LoopKind::Conversation)) {
                let day = self.guard.now.since(self.began).as_secs() / 86_400;
                *self.answers.entry((who, day)).or_default() += 1;
                self.posts.push_back(id);
            }
        }
        for who in 0..FORWARDERS {
            self.forward(who, post);
        }
    }

    /// A mailbox forwards the post; the provider refuses it; the bounce is forwarded as well.
    fn forward(&mut self, who: usize, post: &str) {
        self.number += 1;
        let (mailbox, away) = (format!("f{who}@uni.example"), format!("f{who}@provider.example"));
        let text = format!(
            "List-Id: <all.lists.example>\r\nPrecedence: list\r\nFrom: somebody@shop.example\r\n\
             To: {LIST}\r\nSubject: Hello all\r\nMessage-ID: <{post}>\r\n\r\nHello.\r\n"
        );
        let text = hop(&text, "mx.lists.example", LIST, self.number);
        let text = format!("Delivered-To: {mailbox}\r\n{text}");
        assert!(self.hand_in(&text, &mailbox, &away, None));
        let bounce = format!(
            "Delivered-To: {mailbox}\r\nFrom: MAILER-DAEMON@uni.example\r\nTo: {mailbox}\r\n\
             Subject: Undelivered Mail Returned to Sender\r\nAuto-Submitted: auto-replied\r\n\
             Message-ID: <b{}@uni.example>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/report; \
             report-type=delivery-status; boundary=b\r\n\r\n--b\r\nContent-Type: \
             message/delivery-status\r\n\r\nReporting-MTA: dns; mx.uni.example\r\n\r\n\
             Final-Recipient: rfc822; {away}\r\nAction: failed\r\nStatus: 5.7.1\r\n\r\n--b\r\n\
             Content-Type: message/rfc822\r\n\r\n{text}\r\n--b--\r\n",
            self.number
        );
        let refused = self.hand_in(&bounce, "", &away, Some(LoopKind::ForwardedBounce));
        assert!(!refused, "a bounce must not be forwarded to who refused");
    }
}

#[test]
fn the_oxford_storm_ends() {
    let wanted = std::env::var("REPLYGUARD_STORM").ok().and_then(|n| n.parse().ok());
    let wanted: usize = wanted.unwrap_or(10_000);
    let mut storm = Storm::new(20_261_121);
    let mut people = 0;
    while storm.handed_in() < wanted {
        let post = storm.posts.pop_front().unwrap_or_else(|| {
            // All is quiet: somebody writes to the list again.
            people += 1;
            storm.guard.now = storm.guard.now.plus(HOUR / 6);
            format!("p{people}@shop.example")
        });
        storm.guard.now = storm.guard.now.plus(Duration::from_secs(1));
        storm.explode(&post);
    }
    for ((who, day), answers) in &storm.answers {
        assert!(*answers <= 12, "m{who} answered {answers} times on day {day}");
    }
    let health = storm.guard.health();
    assert!(health.sightings.entries <= health.sightings.capacity);
    assert!(health.talks.entries <= health.talks.capacity);
    let sum = |of: fn(&Hour) -> usize| storm.hours.iter().map(of).sum::<usize>();
    let (handed, passed, held) = (sum(|h| h.handed_in), sum(|h| h.passed), sum(|h| h.held));
    println!("handed in {handed}, passed {passed}, held {held}, in {} hours", storm.hours.len());
    println!("memory: {health:?}");
    for (name, of) in [
        ("handed in", (|h| h.handed_in) as fn(&Hour) -> usize),
        ("passed", |h| h.passed),
        ("held", |h| h.held),
    ] {
        let counts: Vec<usize> = storm.hours.iter().map(of).collect();
        println!("\n{name}, at most {} an hour", counts.iter().max().unwrap());
        columns(&counts, 5).iter().for_each(|row| println!("{row}"));
    }
    assert_eq!(handed, passed + held);
}
