//! One message, two recipients, one of them held: a next hop that fails at every stage.
//!
//! One reply stands for both. Whatever the next hop does: who was told 250 has his copy, at the
//! next hop or in quarantine; nothing is held of what the client will bring again.

use std::time::Duration;

use super::{ALICE, FRIEND, GENUINE, VICTIM, postfix_host};
use crate::client::{Answer, Client, Mail, Reply};
use crate::guard::{Guard, Settings};
use crate::ledger::{Entry, Ledger, mark, marked};
use crate::mail::{own_bounce, vacation_reply};
use crate::servers::missing;
use crate::servers::postfix::Postfix;
use crate::sink::{Act, Sink, Stage, troubles};
use crate::wait::until;

/// When the next hop does it.
#[derive(Clone, Copy, Debug)]
enum When {
    Once,
    Always,
    /// From the second time on that the stage is reached: the guard begins anew for one recipient.
    Second,
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// An out-of-office reply with a real sender: the next hop hears of both recipients at once.
    Reply,
    /// A bounce: the next hop hears of it after the decision, and of one recipient.
    Bounce,
}

/// Small enough to be read before deciding, or not.
#[derive(Clone, Copy, Debug)]
enum Size {
    Whole,
    Streamed,
}

const STREAMED_LINES: usize = 3000;

fn message(kind: Kind, size: Size, number: u32) -> Mail {
    let id = mark(number);
    let (from, mut text) = match kind {
        Kind::Reply => (ALICE, vacation_reply(ALICE, FRIEND, &id)),
        Kind::Bounce => ("", own_bounce(FRIEND, &id, GENUINE)),
    };
    if let Size::Streamed = size {
        text.push_str(&"0123456789 0123456789\r\n".repeat(STREAMED_LINES));
    }
    Mail::new(from, &[FRIEND, VICTIM], text)
}

/// Lets replies to the friend out, of whom the bounces say that he is genuine, and holds those to the
/// victim, whatever is said.
fn guard(sink: &Sink) -> Guard {
    Guard::start(
        Settings::before(sink.address())
            .talkative()
            .set("outbound.inspect_max", "16KiB")
            .set("lists.allow", vec!["friend.example"])
            .set("lists.deny", vec!["victim.example"]),
    )
}

/// The code that each recipient was told in the end.
fn told(mail: &Mail, answer: &Answer) -> Vec<(String, u16)> {
    let each = mail.recipients.iter().enumerate().map(|(index, (address, _))| {
        let at_rcpt = answer.recipients.get(index).filter(|reply| !reply.positive());
        (address.clone(), at_rcpt.unwrap_or(&answer.last).code())
    });
    each.collect()
}

/// Where the copies of one message are.
struct Places {
    /// Recipients at the next hop.
    taken: Vec<String>,
    /// Recipients in quarantine.
    held: Vec<String>,
}

fn places(sink: &Sink, guard: &Guard, number: u32) -> Places {
    let ours = |message: &[u8]| marked(message) == Some(number);
    let taken = sink.taken().into_iter().filter(|one| ours(&one.message));
    let taken = taken.flat_map(|one| one.recipients).map(|recipient| recipient.address).collect();
    let held = guard.quarantine().into_iter().filter(|held| ours(&held.message));
    Places { taken, held: held.flat_map(|held| held.recipients()).collect() }
}

/// Sends a message while the next hop fails, and again when it is well, as a mail server would.
/// Gives the first answer.
fn send(
    sink: &Sink,
    guard: &Guard,
    mut mail: Mail,
    number: u32,
    lossy: bool,
    case: &str,
) -> String {
    let mut first = None;
    for _attempt in 0..3 {
        let answer = Client::open(guard.address()).send(&mail);
        first.get_or_insert_with(|| answer.last.text());
        until("the stage to be cleared", || (guard.pending() == 0).then_some(()));
        let Places { taken, held } = places(sink, guard, number);
        let count = |list: &[String], to: &str| list.iter().filter(|one| *one == to).count();
        assert_eq!(count(&taken, VICTIM), 0, "{case}: {answer:?}");
        // Why: a 5xx to the message would make the client bounce the copy that is to be held as well.
        let at_end = answer.recipients.iter().any(Reply::positive) && answer.last.code() >= 500;
        assert!(!at_end, "{case}: {answer:?}");
        for (to, code) in told(&mail, &answer) {
            let (taken, held) = (count(&taken, &to), count(&held, &to));
            match code {
                250 if to == VICTIM => assert_eq!(held, 1, "{case}: {answer:?}"),
                // Where a reply of the next hop was lost, it may have the message twice.
                250 if lossy => assert!(taken >= 1 && held == 0, "{case}: {answer:?}"),
                250 => assert_eq!(taken + held, 1, "{case}: {to}: {answer:?}"),
                400..500 => assert!(held == 0 && (taken == 0 || lossy), "{case}: {to}: {answer:?}"),
                500..600 => assert!(held == 0 && taken == 0, "{case}: {to}: {answer:?}"),
                _ => panic!("{case}: no answer: {answer:?}"),
            }
        }
        let again: Vec<String> = told(&mail, &answer)
            .into_iter()
            .filter(|(_, code)| (400..500).contains(code))
            .map(|(to, _)| to)
            .collect();
        if again.is_empty() {
            return first.unwrap();
        }
        mail.recipients.retain(|(to, _)| again.contains(to));
        sink.behave();
    }
    panic!("{case}: not taken by a next hop that is well");
}

/// Goal: see above. Method: every failure at every stage, once, always, or from the second time on;
/// then the message again, to a next hop that is well.
fn every_failure(kind: Kind, size: Size) {
    let sink = Sink::smtp();
    let guard = guard(&sink);
    let mut troubles = troubles();
    for act in [Act::Say("451 4.3.0 Later"), Act::Say("421 4.3.2 Leaving"), Act::Close] {
        troubles.push((Stage::Reset, act.clone()));
        troubles.push((Stage::MidData(30_000), act));
    }
    let mut number = 0;
    for (stage, act) in troubles {
        for when in [When::Once, When::Always, When::Second] {
            number += 1;
            match when {
                When::Once => sink.order(stage, "", act.clone(), 1),
                When::Always => sink.at(stage, act.clone()),
                When::Second => sink.order_second(stage, act.clone()),
            }
            let case = format!("{kind:?} {size:?} {stage:?} {act:?} {when:?}");
            let lossy = matches!(act, Act::TakeAndClose);
            let said = send(&sink, &guard, message(kind, size, number), number, lossy, &case);
            sink.behave();
            // A session that is lost before the content is replaced once, and nobody notices.
            let lost = matches!(act, Act::Close | Act::Say("421 4.3.2 Leaving"));
            let early = matches!(stage, Stage::Mail | Stage::Rcpt | Stage::Reset | Stage::Data);
            if lost && early && matches!(when, When::Once) {
                assert!(said.starts_with("250 "), "{case}: {said}");
            }
        }
    }
}

#[test]
fn a_failing_next_hop_loses_and_invents_nothing_of_a_reply() {
    every_failure(Kind::Reply, Size::Whole);
}

#[test]
fn a_failing_next_hop_loses_and_invents_nothing_of_a_long_reply() {
    every_failure(Kind::Reply, Size::Streamed);
}

#[test]
fn a_failing_next_hop_loses_and_invents_nothing_of_a_bounce() {
    every_failure(Kind::Bounce, Size::Whole);
}

#[test]
fn a_failing_next_hop_loses_and_invents_nothing_of_a_long_bounce() {
    every_failure(Kind::Bounce, Size::Streamed);
}

impl Kind {
    /// The stages of its transaction with the next hop.
    fn stages(self) -> Vec<Stage> {
        let begun = match self {
            // RSET: the guard begins anew for one recipient.
            Self::Reply => vec![Stage::Mail, Stage::Rcpt, Stage::Reset],
            Self::Bounce => vec![Stage::Mail, Stage::Rcpt],
        };
        [begun, vec![Stage::Data, Stage::MidData(30_000), Stage::EndOfData]].concat()
    }
}

/// Goal: a slow next hop is no trouble. Method: it takes its time at every stage.
#[test]
fn a_late_answer_is_waited_for() {
    let sink = Sink::smtp();
    let guard = guard(&sink);
    let mut number = 0;
    for kind in [Kind::Reply, Kind::Bounce] {
        for stage in kind.stages() {
            number += 1;
            sink.order(stage, "", Act::Late(Duration::from_millis(50)), 1);
            let answer = Client::open(guard.address()).send(&message(kind, Size::Streamed, number));
            assert_eq!(answer.last.text(), "250 2.0.0 Ok: queued as SINK", "{kind:?} {stage:?}");
            let Places { taken, held } = places(&sink, &guard, number);
            assert_eq!((taken, held), (vec![FRIEND.to_owned()], vec![VICTIM.to_owned()]));
            sink.behave();
        }
    }
}

/// How the next hop refuses for good.
const REFUSED: &str = "550 5.7.1 No";

/// Goal: the same with a real server in front, which brings again what it was told to bring again.
/// Method: a message for each failure and each late answer, all at once, two recipients each; in the
/// end every copy is delivered, held, or returned to its author because the next hop refused it.
#[test]
fn postfix_brings_again_what_failed_and_nothing_else() {
    if missing() {
        return;
    }
    let (sink, returned) = (Sink::smtp(), Sink::lmtp());
    let guard = guard(&sink);
    let settings = postfix_host().mailboxes(returned.address());
    let postfix = Postfix::start(&settings.variant_a(guard.address()));
    let mut cases = troubles();
    let mut stages: Vec<Stage> = cases.iter().map(|(stage, _)| *stage).collect();
    stages.dedup();
    let late = Act::Late(Duration::from_millis(200));
    cases.extend(stages.into_iter().map(|stage| (stage, late.clone())));

    let (mut ledger, mut returns, mut twice) = (Ledger::default(), 0, 0);
    let mut client = Client::open(postfix.submission());
    for (number, (stage, act)) in (1..).zip(&cases) {
        let id = mark(number);
        let [from, friend, victim] =
            ["ours", "friend", "victim"].map(|domain| format!("{id}x@{domain}.example"));
        let containing = match stage {
            Stage::Mail | Stage::EndOfData => id.as_str(),
            Stage::Rcpt => &friend,
            // These name nobody: it strikes whoever comes first.
            _ => "",
        };
        sink.order(*stage, containing, act.clone(), 1);
        let refused = matches!(act, Act::Say(REFUSED));
        let both = [&friend, &victim];
        let to_come: &[&String] = match stage {
            // Refused before the message: Postfix hears it as the next hop said it.
            Stage::Mail if refused => &[],
            Stage::Rcpt if refused => &[&victim],
            _ => &both,
        };
        to_come.iter().for_each(|to| ledger.sent(number, to));
        returns += usize::from(to_come.len() < both.len());
        twice += usize::from(matches!(act, Act::TakeAndClose));
        let reply = vacation_reply(&from, &friend, &id);
        client.deliver(&Mail::new(&from, &[&friend, &victim], reply));
    }

    returned.wait_for(returns);
    postfix.drained();
    assert_eq!((sink.orders_left(), returned.taken().len()), (0, returns));
    ledger.arrived(&sink);
    ledger.held(&guard);
    let balance = ledger.balance();
    let doubled: Vec<&Entry> = balance.doubled.iter().map(|(entry, _)| entry).collect();
    assert!(balance.lost.is_empty() && balance.strange.is_empty(), "{balance}");
    assert!(doubled.len() <= twice, "{balance}");
    assert!(doubled.iter().all(|entry| entry.recipient.ends_with("@friend.example")), "{balance}");
    let held = guard.held_for();
    assert!(held.iter().all(|one| one.ends_with("@victim.example")), "{held:?}");
}

/// Goal: a client that gives up has its message still, so nothing of it may be held. Method: the
/// next hop never answers, the client leaves, the next hop dies.
#[test]
fn a_client_that_leaves_leaves_nothing_behind() {
    for kind in [Kind::Reply, Kind::Bounce] {
        for stage in kind.stages() {
            let mut sink = Sink::smtp();
            let mut guard = guard(&sink);
            sink.at(stage, Act::Stall);
            let mail = message(kind, Size::Streamed, 1);
            // Its answer, if there is one, does not matter: nobody is there any more.
            Client::open(guard.address()).send_and_leave(&mail, Duration::from_millis(30));
            sink.stop();
            // It ends when nothing is under way any more.
            guard.stop();
            assert_eq!(guard.held_for(), [""; 0], "{kind:?} {stage:?}");
            assert_eq!((guard.pending(), sink.taken().len()), (0, 0), "{kind:?} {stage:?}");
        }
    }
}

/// Goal: half a message is no message. Method: the client breaks off in the middle of the content.
#[test]
fn half_a_message_is_neither_held_nor_delivered() {
    let sink = Sink::smtp();
    let mut guard = guard(&sink);
    let mut number = 0;
    for kind in [Kind::Reply, Kind::Bounce] {
        for bytes in [100, 10_000, 50_000] {
            number += 1;
            let mail = message(kind, Size::Streamed, number);
            let mut client = Client::open(guard.address());
            client.command(&format!("MAIL FROM:<{}>", mail.reverse_path)).must();
            for (to, _) in &mail.recipients {
                client.command(&format!("RCPT TO:<{to}>")).must();
            }
            client.command("DATA").must();
            client.bytes(&mail.message[..bytes]);
            drop(client);
        }
    }
    // It ends when nothing is under way any more.
    guard.stop();
    assert_eq!(guard.held_for(), [""; 0]);
    assert_eq!((guard.pending(), sink.taken().len()), (0, 0));
}
