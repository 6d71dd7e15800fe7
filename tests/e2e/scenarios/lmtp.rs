//! LMTP on both sides: a reply for each recipient, so each has a fate of its own.

use super::{ALICE, FRIEND, STRANGER, VICTIM};
use crate::client::{Client, Mail};
use crate::guard::{Guard, Settings};
use crate::ledger::{Ledger, mark};
use crate::mail::vacation_reply;
use crate::servers::missing;
use crate::servers::postfix::{self, Postfix};
use crate::sink::{Act, Sink, Stage};

/// Goal: no recipient's trouble is another's. Method: Postfix hands in one message for three: one is
/// delivered, one is held, one must come again; the third alone does.
#[test]
fn each_recipient_has_a_reply_of_its_own() {
    if missing() {
        return;
    }
    let sink = Sink::lmtp();
    let settings = Settings::before(sink.address())
        .set("outbound.protocol", "lmtp")
        .set("outbound.next_hop", vec![format!("lmtp:{}", sink.address())])
        .set("lists.allow", vec!["friend.example", "stranger.example"])
        .set("lists.deny", vec!["victim.example"]);
    let guard = Guard::start(settings);
    sink.order(Stage::EndOfData, STRANGER, Act::Say("452 4.2.2 Full"), 1);
    let transport = format!("lmtp:inet:[127.0.0.1]:{}", guard.address().port());
    let postfix = Postfix::start(&postfix::Settings::default().set("default_transport", transport));

    let mut ledger = Ledger::default();
    let everybody = [FRIEND, VICTIM, STRANGER];
    everybody.iter().for_each(|to| ledger.sent(1, to));
    let mail = Mail::new(ALICE, &everybody, vacation_reply(ALICE, FRIEND, &mark(1)));
    Client::open(postfix.submission()).deliver(&mail);

    sink.wait_for(2);
    postfix.drained();
    ledger.arrived(&sink);
    ledger.held(&guard);
    ledger.assert_balanced();
    assert_eq!(guard.held_for(), [VICTIM]);
    let replies = |to: &str| -> Vec<String> {
        let records = guard.audit_of(to);
        records.iter().map(|record| record["reply"].as_str().unwrap()[..3].to_owned()).collect()
    };
    assert_eq!(everybody.map(replies), [vec!["250"], vec!["250"], vec!["452", "250"]]);
}
