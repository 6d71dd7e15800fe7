//! What loops are found by: traces that nobody can forge, and a memory that nobody can empty.
//!
//! Goal: forged, replayed, foreign and expired traces count nothing and harm nobody; neither a
//! flood nor a restart makes a running loop or conversation forgotten. Method: the rig of `loops`.
//! `REPLYGUARD_LOOP_FLOOD` sets how many messages the flood has: `scripts/loops` does ten million.

use std::sync::Arc;
use std::time::Duration;

use replyguard::judge::decision::LoopKind;
use replyguard::judge::loops::Alarm;
use replyguard::judge::trace::TRACE_FIELD;
use replyguard::mail::limits::TRACE_AGE_MAX;
use replyguard::store::sightings::{Copied, Settings, Sightings};

use crate::loops::{
    Guard, HOUR, LETTER, NOW, SECOND, VACATION, arrived, hop, passes, reply, strips,
};

const ANN: &str = "ann@shop.example";
const BOB: &str = "bob@bank.example";
const EVE: &str = "eve@bank.example";

/// The trace that stands on top of a message, with its folds.
fn trace_of(text: &str) -> String {
    let end = text.find("\r\nReceived:").unwrap();
    assert!(text.starts_with(TRACE_FIELD));
    format!("{}\r\n", &text[..end])
}

/// A new letter under these lines.
fn letter_under(lines: &str, id: usize) -> String {
    lines.to_owned() + &arrived(&LETTER.replace("<minutes@", &format!("<minutes-{id}@")))
}

/// Goal: traces that prove nothing hold nothing, whatever stands under them, and none of them makes
/// a later message anybody's lap. Method: each twice, for a letter and for a response, which may
/// not come back at all.
#[test]
fn traces_that_are_not_ours_count_nothing_and_harm_nobody() {
    let mut guard = Guard::new("guard-1", "here");
    let mut elsewhere = Guard::new("guard-9", "there");
    let genuine = trace_of(&passes(&mut guard, &arrived(LETTER), ANN, EVE));
    let foreign = trace_of(&passes(&mut elsewhere, &arrived(LETTER), ANN, BOB));
    let for_bob = trace_of(&passes(&mut guard, &letter_under("", 99), ANN, BOB));
    let forged = [
        ("replayed to somebody else", genuine.clone()),
        ("of another site", foreign),
        ("a code changed", for_bob.replace("r=", "r=0")),
        ("the lap changed", for_bob.replace("l=0", "l=1")),
        ("the event changed", for_bob.replace("e=0", "e=1")),
        ("another site's name", for_bob.replace("s=here", "s=there")),
        ("cut", for_bob[..for_bob.len() / 2].to_owned() + "\r\n"),
        ("without a seal", format!("{TRACE_FIELD}: v=1; s=here; e=01J; l=9\r\n")),
        ("no trace at all", format!("{TRACE_FIELD}: hello\r\n")),
        ("too many to be read", format!("{TRACE_FIELD}: v=1\r\n").repeat(5000)),
    ];
    for (number, (what, lines)) in forged.iter().enumerate() {
        let twice = lines.repeat(2);
        let text = guard.pass(&letter_under(&twice, number), ANN, BOB);
        assert!(text.is_ok(), "{what}: {text:?}");
        let answer = VACATION.replace("Message-ID: <", &format!("Message-ID: <{number}"));
        let text = guard.pass(&format!("{twice}{answer}"), "", &format!("b{number}@bank.example"));
        assert!(text.is_ok(), "{what}: {text:?}");
    }
    // Too old: what was sent more than a week ago, and from a clock that was wrong.
    guard.now = NOW.plus(TRACE_AGE_MAX + SECOND);
    passes(&mut guard, &letter_under(&for_bob.repeat(3), 50), ANN, BOB);
    // And who was really written to gets his mail, after all this.
    passes(&mut guard, &letter_under("", 51), ANN, BOB);
}

/// What has many hops is held only where something else speaks for a loop: our own trace, or one
/// mailbox three times. A response is held at 26.
#[test]
fn hops_are_limited_by_class() {
    let many = |text: &str, count: usize| {
        (0..count).fold(text.to_owned(), |text, n| hop(&text, "h.example", "x@x.example", n))
    };
    let mut guard = Guard::new("guard-1", "here");
    let passed = guard.take(&many(LETTER, 61), ANN, &[BOB], "::1").remove(0);
    assert_eq!((passed.finding, passed.alarm), (None, Some(Alarm::ManyHops(61))));
    passed.round.confirm(NOW);
    let forged = format!("{TRACE_FIELD}: v=1; s=here; e=01J; l=1; m=00\r\n{}", many(LETTER, 61));
    assert_eq!(guard.take(&forged, ANN, &[EVE], "::1")[0].finding, None);
    for times in [2, 3] {
        let marked =
            format!("{}{}", format!("Delivered-To: {BOB}\r\n").repeat(times), many(LETTER, 61));
        let found = guard.take(&marked, ANN, &["x@bank.example"], "::1").remove(0).finding;
        assert_eq!(found.map(|found| found.kind), (times == 3).then_some(LoopKind::Hops));
    }
    let traced = passes(&mut guard, LETTER, ANN, "y@bank.example");
    let found = guard.take(&many(&traced, 60), ANN, &["z@bank.example"], "::1").remove(0).finding;
    assert_eq!(found.map(|found| found.kind), Some(LoopKind::Hops));
    for (hops, held) in [(25, false), (26, true)] {
        let answer = reply("eve@uni.example", BOB, 1, "1@bank.example", "1@bank.example");
        let found = guard.take(&many(&answer, hops), "", &[BOB], "::1").remove(0).finding;
        assert_eq!(found.map(|found| found.kind), held.then_some(LoopKind::Hops), "{hops}");
    }
}

/// Goal: a scanner may hand mail from one listener of a guard to the other, responses as well, as
/// often as two may talk; and what comes back to the same listener is a loop all the same.
#[test]
fn one_guard_may_stand_in_one_path_with_two_listeners() {
    let mut guard = Guard::new("guard-1", "here");
    for n in 0..5 {
        let answer =
            reply("bob@uni.example", ANN, n, &format!("{n}@shop.example"), "hi@shop.example");
        let text = guard.pass(&answer, "", ANN);
        if n == 4 {
            assert_eq!(text.unwrap_err().kind, LoopKind::Conversation, "the fifth in an hour");
            break;
        }
        let text = hop(&text.unwrap(), "scanner.example", ANN, n);
        guard.listener = 1;
        let text = passes(&mut guard, &text, "", ANN);
        let text = hop(&text, "scanner.example", ANN, n);
        assert_eq!(guard.pass(&text, "", ANN).unwrap_err().kind, LoopKind::Lap);
        guard.listener = 0;
        assert_eq!(guard.pass(&text, "", ANN).unwrap_err().kind, LoopKind::Lap);
    }
}

/// A letter that passes one listener twice, as the loops' rules allow, is one letter of a thread.
#[test]
fn who_is_seen_twice_does_not_talk_twice() {
    let mut guard = Guard::new("guard-1", "here");
    for n in 0..59 {
        let text = format!(
            "From: {ANN}\r\nTo: {BOB}\r\nSubject: Re: Offer\r\nReferences: <offer@shop.example>\r\n\
             Message-ID: <{n}@shop.example>\r\n\r\n{n}\r\n"
        );
        let text = passes(&mut guard, &text, ANN, BOB);
        let passed = guard.take(&text, ANN, &[BOB], "::1").remove(0);
        assert_eq!((passed.finding, passed.alarm), (None, None), "{n}");
        passed.round.confirm(guard.now);
    }
}

/// Goal: a restart gives responders that answer one another no new window. Method: one after every
/// answer from the second on (what happened once is not written down); where the thread counts, one
/// in the middle: which answers were ours is known of the last one only after another round.
#[test]
fn a_conversation_outlives_restarts() {
    for (pause, limit, rooted) in [(SECOND, 4, false), (HOUR, 12, false), (HOUR, 6, true)] {
        let mut guard = Guard::new("guard-1", "here");
        let own = "bob@uni.example";
        let mut sent = 0;
        loop {
            let (answered, root) = match rooted {
                true => (format!("v{}-{own}", sent.max(1) - 1), "hello@shop.example".to_owned()),
                false => (format!("{sent}@shop.example"), format!("{sent}@shop.example")),
            };
            match guard.pass(&reply(own, ANN, sent, &answered, &root), "", ANN) {
                Ok(_) => sent += 1,
                Err(finding) => {
                    assert_eq!(finding.kind, LoopKind::Conversation);
                    break;
                }
            }
            if if rooted { sent == 3 } else { sent >= 2 } {
                guard.restart();
            }
            guard.now = guard.now.plus(pause);
            assert!(sent <= limit + 1, "it goes on for ever");
        }
        println!(
            "one answer every {pause:?}, with restarts: ended after {sent}, the limit is {limit}"
        );
        assert!((limit..=limit + 1).contains(&sent), "{sent} of {limit}");
    }
}

/// How many answers were held stands in the record of each.
#[test]
fn what_was_held_of_a_conversation_is_counted() {
    let mut guard = Guard::new("guard-1", "here");
    let mut stopped = Vec::new();
    for n in 0..8 {
        let id = format!("{n}@shop.example");
        if let Err(finding) = guard.pass(&reply("bob@uni.example", ANN, n, &id, &id), "", ANN) {
            stopped.push(finding.stopped);
        }
        if n == 6 {
            guard.restart();
        }
    }
    assert_eq!(stopped, [1, 2, 3, 4]);
}

/// Goal: nor does it let a ring without traces run anew. Method: a restart after each copy from the
/// second on.
#[test]
fn a_ring_without_traces_outlives_restarts() {
    let mut guard = Guard::new("guard-1", "here");
    let mut text = arrived(LETTER);
    for transit in 1..10 {
        match guard.pass(&text, ANN, BOB) {
            Ok(on) => text = hop(&strips(on, transit), "mx.forward.example", BOB, transit),
            Err(finding) => {
                assert_eq!((transit, finding.kind), (4, LoopKind::Progression));
                assert_eq!(finding.first_seen, NOW);
                return;
            }
        }
        if transit > 1 {
            guard.restart();
        }
        guard.now = guard.now.plus(SECOND);
    }
    panic!("it goes round for ever");
}

#[test]
fn traces_of_a_replaced_key_still_count() {
    let mut guard = Guard::new("guard-1", "here");
    let text = passes(&mut guard, &arrived(VACATION), "", ANN);
    guard.replace_key();
    let found = guard.pass(&hop(&text, "mx.forward.example", ANN, 1), "", ANN).unwrap_err();
    assert_eq!(found.kind, LoopKind::Lap);
}

/// All our addresses together answer one domain more than usual: it is said once an hour, and
/// nothing is held for it, since a stranger could push it.
#[test]
fn a_crowd_that_answers_one_domain_is_heard_of_once_an_hour() {
    let mut guard = Guard::new("guard-1", "here");
    let mut told = Vec::new();
    for n in 0..2000 {
        let own = format!("p{n}@uni.example");
        let other = format!("x{n}@shop.example");
        let id = format!("{n}@shop.example");
        let text = reply(&own, &other, n, &id, &id);
        let passed = guard.take(&text, "", &[&other], "127.0.0.1").remove(0);
        assert_eq!(passed.finding, None);
        told.extend(passed.round.crowd().map(|sent| (n, sent)));
        passed.round.confirm(guard.now);
        guard.now = guard.now.plus(4 * SECOND);
    }
    assert_eq!(told, [(600, 600), (1500, 600)]);
}

/// How many messages the flood has.
fn flood() -> u64 {
    std::env::var("REPLYGUARD_LOOP_FLOOD").ok().and_then(|n| n.parse().ok()).unwrap_or(60_000)
}

/// What the messages of a flood have in common.
#[derive(Clone, Copy, Debug)]
enum Flood {
    /// Nothing.
    Distinct,
    /// Each comes twice, with equal hops.
    Twice,
    /// One sender, each twice with more hops: they look as if they went round.
    OneSenderRising,
}

/// Goal: no flood makes a running loop forgotten, nor a memory grow. Method: the flood comes between
/// the laps of a loop that leaves no trace; the memory holds a tenth of it.
#[test]
fn a_flood_hides_no_running_loop() {
    for kind in [Flood::Distinct, Flood::Twice, Flood::OneSenderRising] {
        let entries = usize::try_from(flood() / 10).unwrap();
        let memory = Sightings::new(&Settings { entries, window: Duration::from_secs(86_400) });
        let pass = |n: u64, owner: u16, hops: u32| {
            // Keys are hashes: spread over all bits.
            let first = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let key = [first, first ^ n];
            let copy = Copied { key, owners: [0, owner], hops, past: 0 };
            let (flight, seen) = Arc::clone(&memory).reserve(vec![copy], NOW);
            flight.confirm(NOW);
            seen[0].map_or(0, |seen| seen.rises)
        };
        pass(0, 0, 1);
        pass(0, 0, 3);
        let mut next = 1;
        for lap in 2..=3 {
            for _ in 0..flood() / 2 {
                let owner = u16::try_from(next % 16_000).unwrap() + 1;
                let (owner, copies) = match kind {
                    Flood::Distinct => (owner, 3..4),
                    Flood::Twice => (owner, 3..5),
                    Flood::OneSenderRising => (7, 3..5),
                };
                for hops in copies {
                    pass(next, owner, if matches!(kind, Flood::Twice) { 3 } else { hops });
                }
                next += 1;
            }
            assert_eq!(pass(0, 0, 1 + 2 * lap), lap, "{kind:?}: the loop is forgotten");
        }
        let health = memory.health();
        println!("{kind:?}: {} messages, memory {health:?}", next - 1);
        assert!(health.entries <= health.capacity, "{health:?}");
        assert!(health.evicted + health.refused > 0, "{health:?}");
    }
}
