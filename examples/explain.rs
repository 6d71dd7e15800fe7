//! The library on one message: what it is, what it answers, and what would be decided.
//!
//! `cargo run --example explain -- examples/messages/forged-bounce.eml`
//!
//! No network: what DNS would say counts as nothing published. The command `replyguard explain`
//! asks DNS too.

use std::error::Error;

use replyguard::judge::decide::decide;
use replyguard::judge::evidence::{Evidence, Gap, GapCause};
use replyguard::judge::fingerprint::FingerprintKey;
use replyguard::judge::policy::{Mode, Policy};
use replyguard::judge::site::Site;
use replyguard::judge::trace::TraceKey;
use replyguard::judge::{Keys, read};
use replyguard::mail::address::{Domain, ForwardPath, ReversePath};
use replyguard::mail::envelope::{Client, Envelope, MailFrom, Parameters, Recipient};
use replyguard::mail::header::Completeness;
use replyguard::mail::message::Message;
use replyguard::mail::time::Timestamp;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("name a message")?;
    let message = Message::new(std::fs::read(path)?, Completeness::Whole);

    // What is ours: without it nothing can be believed.
    let site = Site {
        domains: Domain::parse("uni.example").into_iter().collect(),
        networks: vec!["127.0.0.0/8".parse()?],
        hosts: ["mx.uni.example".to_owned()].into(),
        authserv_ids: ["mx.uni.example".to_owned()].into(),
        authserv_stripped: true,
        ..Site::default()
    };
    let policy = Policy { mode: Mode::Enforce, site, ..Policy::default() };

    // The envelope: a bounce goes to the addresses of its To field, from nobody.
    let to =
        message.view().fields.all("to").flat_map(|field| field.addresses()).collect::<Vec<_>>();
    let recipient = |address| Recipient {
        path_text: format!("<{address}>"),
        path: ForwardPath::Address(address),
        parameters: Parameters::default(),
    };
    let envelope = Envelope {
        client: Client::default(),
        mail: MailFrom {
            path: ReversePath::Null,
            path_text: "<>".to_owned(),
            parameters: Parameters::default(),
        },
        recipients: to.into_iter().map(recipient).collect(),
    };

    // The first door: what the message says of itself.
    let (fingerprint, trace) = (FingerprintKey::new([0; 32]), TraceKey::new([0; 32]));
    let keys = Keys { fingerprint: &fingerprint, trace: &trace, loop_site: "example" };
    let case = read(&envelope, &message, &policy.site, &keys);
    println!("{} {:?}", case.class, case.original.message_id());

    // Between the doors the guard would ask DNS and its memory.
    let evidence = Evidence {
        findings: case.original.findings.clone().into_iter().collect(),
        gaps: vec![Gap::new(GapCause::NoTap, "this is an example")],
        ..Evidence::default()
    };

    // The second door: a decision for each recipient.
    for decision in decide(&envelope, &case, &evidence, &policy, Timestamp::from_millis(0)) {
        println!("{}: {} ({})", decision.action, decision.text, decision.rule);
    }
    Ok(())
}
