//! Records and held messages to write in tests.

use replyguard::audit::record::{Handled, Record};
use replyguard::judge::classify::Class;
use replyguard::judge::decision::{Action, Decision, FailureKind, Reason, Verdict};
use replyguard::mail::address::{Address, ForwardPath, ReversePath};
use replyguard::mail::envelope::{Client, Envelope, MailFrom, Parameter, Parameters, Recipient};
use replyguard::mail::time::Timestamp;
use ulid::Ulid;

/// A moment in 2026.
pub const NOW: Timestamp = Timestamp::from_millis(1_795_282_739_042);

/// Event number `number`.
pub fn event(number: u64) -> Ulid {
    Ulid::from_parts(NOW.as_millis().unsigned_abs() + number, 0)
}

/// `<>` to these recipients.
pub fn envelope(recipients: &[&str]) -> Envelope {
    let parameter = |text: &str| Parameter { keyword: "NOTIFY".into(), text: text.to_owned() };
    let recipient = |text: &&str| Recipient {
        path: ForwardPath::Address(Address::parse(text).unwrap()),
        path_text: format!("<{text}>"),
        parameters: Parameters::new(vec![parameter("notify=NEVER")]),
    };
    Envelope {
        client: Client { helo: "mta.example".to_owned(), ..Client::default() },
        mail: MailFrom {
            path: ReversePath::Null,
            path_text: "<>".to_owned(),
            parameters: Parameters::default(),
        },
        recipients: recipients.iter().map(recipient).collect(),
    }
}

/// What is decided: failed by SPF where something is done, personal where it is delivered.
pub fn decision(action: Action) -> Decision {
    let delivered = action == Action::Deliver;
    Decision {
        verdict: (!delivered).then_some(Verdict::Failed { by: FailureKind::Spf }),
        gaps: Vec::new(),
        subject: None,
        loop_finding: None,
        action,
        would: None,
        counts: false,
        rule: "profile".to_owned(),
        reason: if delivered { Reason::Personal } else { Reason::FailedSpf },
        text: "a sentence".to_owned(),
        otherwise: Vec::new(),
    }
}

/// The records of event `number`, one for each action.
pub fn records(number: u64, class: Class, actions: &[Action]) -> Vec<Record> {
    let names: Vec<String> =
        (0..actions.len()).map(|rcpt| format!("joe{rcpt}@bank.example")).collect();
    let envelope = envelope(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let decisions: Vec<Decision> = actions.iter().map(|action| decision(*action)).collect();
    let handled = Handled {
        time: NOW,
        event: event(number),
        instance: "guard1",
        session: "s1",
        build: "0.1.0",
        policy: "abc",
        envelope: &envelope,
        message_id: None,
        size_bytes: 1234,
        class,
        signals: &[],
        fingerprint: None,
        hops: None,
        dated: None,
        responder: &[],
        origin: None,
        original: None,
        evidence: None,
    };
    handled.records(&decisions)
}

/// One record of a delivered message.
pub fn delivered(number: u64, class: Class) -> Vec<Record> {
    records(number, class, &[Action::Deliver])
}
