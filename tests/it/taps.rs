//! Messages of other projects' suites through a tap, and an answer to each.
//!
//! Goal: what the suites call no pass lets no answer out as *authenticated*, from the bytes that
//! come in to the verdict on the reply. Method: a tap over real DNS on loopback and a store; then a
//! reply of ann to MAIL FROM. Where the suites are missing: SKIPPED.

use std::sync::Arc;
use std::time::Duration;

use replyguard::auth::{Authenticator, Settings};
use replyguard::guard::tap::{self, Tap};
use replyguard::judge::arrival::Seen;
use replyguard::judge::decision::{Scope, Verdict};
use replyguard::judge::evidence::AuthResult;
use replyguard::judge::posted::path;
use replyguard::judge::subject::TapKind;
use replyguard::judge::weighed::weighed;
use replyguard::mail::author::Author;
use replyguard::mail::message::Kept;
use replyguard::mail::raw::split;

use crate::dkim::{THEN, expected, messages_of_mail_auth, messages_of_suites};
use crate::dns::TestDns;
use crate::spf::scenarios;
use crate::vacation::{Desk, address, desk_with, memory};

/// A tap whose records decide about replies.
struct Border {
    desk: Desk,
    tap: Arc<Tap>,
}

/// What became of a message, and of the reply to it.
struct Judged {
    spf: Option<AuthResult>,
    signatures: Vec<AuthResult>,
    authenticated: Option<Scope>,
}

impl Border {
    fn new(server: &TestDns) -> Border {
        let timeout = Duration::from_secs(1);
        let settings = Settings { servers: vec![server.address()], timeout, best_guess: false };
        let facts = Arc::new(Authenticator::new(&settings).unwrap());
        let desk = desk_with(facts, THEN, memory(), |_| {});
        let settings = tap::Settings { wait: Duration::from_secs(40), spam_field: None };
        let tap = Tap::new(Arc::clone(&desk.inquiry), Arc::clone(&desk.store), settings);
        Border { desk, tap }
    }

    /// Takes a message in, and judges a reply to its MAIL FROM.
    async fn judged(&self, client: &str, helo: &str, mail_from: &str, message: &[u8]) -> Judged {
        let seen = Seen {
            id: self.tap.new_id(),
            tap: TapKind::Milter,
            host: "mx.uni.example".to_owned(),
            queue_id: None,
            began: self.tap.now(),
            arrived: self.tap.now(),
            client: Some(client.parse().unwrap()),
            helo: helo.to_owned(),
            authenticated: None,
            mail_from: path(mail_from),
            envelope_id: None,
            recipients: vec![address("ann@uni.example")],
            message: message.to_vec().into(),
            spam_field: None,
        };
        let is_null = seen.mail_from.is_null();
        let taken = self.tap.take(seen, Kept::Whole).await;
        let findings = taken.results.expect("results in time").record.findings.remove(0);
        let authenticated = if is_null { None } else { self.reply(mail_from).await };
        Judged {
            spf: findings.spf.first().map(|spf| spf.result),
            signatures: findings.dkim.iter().map(|dkim| dkim.result).collect(),
            authenticated,
        }
    }

    /// As what ann's reply counts as authenticated, if it does.
    async fn reply(&self, to: &str) -> Option<Scope> {
        let explained = self.desk.explained(to, "").await;
        let evidence = &explained.evidence;
        let known = evidence.recipients.first();
        let found = known.and_then(|known| known.answered.as_ref());
        assert!(found.is_some(), "the reply to {to} found no message");
        let in_force = self.desk.inquiry.in_force();
        let weighed = weighed(&address(to), evidence, known, &in_force.policy);
        match weighed.verdict {
            Verdict::Authenticated { scope, .. } => Some(scope),
            _ => None,
        }
    }
}

const MESSAGE: &[u8] =
    b"From: Joe <joe@nobody.example>\r\nMessage-ID: <1@nobody.example>\r\n\r\nHello\r\n";

/// Goal: as above for the 203 cases of the SPF suite. Method: each case's client, HELO and MAIL FROM,
/// with a message of somebody else in between.
#[tokio::test]
async fn the_suite_for_rfc_7208_through_a_tap() {
    let Some(scenarios) = scenarios() else { return };
    let (mut not_asked, mut passed, mut others, mut wrong) = (0, 0, 0, Vec::new());
    for (_, server, cases) in scenarios {
        for case in cases {
            // A border for each: what came before must not be mistaken for it.
            let border = Border::new(&server);
            let client = case.client.to_string();
            let judged = border.judged(&client, &case.helo, &case.mail_from, MESSAGE).await;
            let Some(spf) = judged.spf else {
                // The null reverse-path, and clients with addresses of a private network.
                assert_eq!(judged.authenticated, None, "{}", case.name);
                not_asked += 1;
                continue;
            };
            match judged.authenticated {
                Some(_) => passed += 1,
                None => others += 1,
            }
            let may_pass = case.results.iter().any(|result| result == "pass");
            let is_right = case.results.contains(&spf.to_string());
            if !is_right || (judged.authenticated.is_some() && !may_pass) {
                wrong.push(format!("{}: {spf}, {:?}", case.name, judged.authenticated));
            }
        }
    }
    println!("{passed} authenticated, {others} not; of {not_asked} SPF is not asked");
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(passed + others + not_asked, 203);
    assert!(passed >= 20 && others >= 80, "{passed} {others}");
}

/// What a forger makes of a signed message.
fn forgeries(message: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let with = |front: &str| [front.as_bytes(), message].concat();
    let mut body = message.to_vec();
    let last = body.iter().rposition(u8::is_ascii_alphanumeric).unwrap();
    body[last] ^= 1;
    vec![
        ("another body", body),
        ("another From in front", with("From: <victim@bank.example>\r\n")),
        ("a result of its own", with("Authentication-Results: mx.uni.example; spf=pass\r\n")),
    ]
}

/// The author of a message, when it names one.
fn author(message: &[u8]) -> Option<String> {
    let author = Author::of(&split(message).0);
    author.mailboxes.first().map(ToString::to_string)
}

/// Goal: as above for signed messages. Method: each as it is, forged in three ways, and as it is with
/// somebody else's return path; nobody's SPF passes. Another body leaves what the header's signature
/// proves alone, which is the domain: one answer a day.
#[tokio::test]
async fn signed_messages_through_a_tap() {
    let (Some((zone, suites)), Some(own)) = (messages_of_suites(), messages_of_mail_auth()) else {
        return;
    };
    let none = |(zone, message)| (zone, String::new(), message);
    let suites = suites.into_iter().map(|(name, message)| (zone.clone(), name, message));
    let (mut passed, mut forged, mut wrong) = (0, 0, Vec::new());
    for (zone, name, message) in own.into_iter().map(none).chain(suites) {
        let server = TestDns::start(&zone);
        let may_pass = name.is_empty() || expected(&name).contains(&"pass");
        let Some(author) = author(&message) else { continue };
        let judged = Border::new(&server).judged("192.0.2.1", "h", &author, &message).await;
        let has_passed = judged.signatures.contains(&AuthResult::Pass);
        if has_passed != may_pass || judged.authenticated == Some(Scope::Address) && !may_pass {
            wrong.push(format!("{name}: {:?} {:?}", judged.signatures, judged.authenticated));
        }
        passed += usize::from(judged.authenticated.is_some());
        let mut forgeries = forgeries(&message);
        forgeries.push(("somebody else's path", message));
        for (how, message) in forgeries {
            let (victim, most) = match how {
                "another From in front" | "somebody else's path" => ("victim@bank.example", None),
                "another body" if may_pass => (author.as_str(), Some(Scope::DomainOnly)),
                "a result of its own" if may_pass => (author.as_str(), Some(Scope::Address)),
                _ => (author.as_str(), None),
            };
            let border = Border::new(&server);
            let judged = border.judged("192.0.2.1", "h", victim, &message).await;
            // `None` is less than any scope.
            if judged.authenticated > most {
                let found = judged.authenticated;
                wrong.push(format!("{name} with {how}: {:?} {found:?}", judged.signatures));
            }
            forged += 1;
        }
    }
    println!("{passed} authenticated, {forged} forgeries");
    assert_eq!(wrong, Vec::<String>::new());
    assert!(passed >= 8 && forged > 100, "{passed} {forged}");
}
