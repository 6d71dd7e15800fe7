//! DKIM against real DNS on loopback: messages signed with dkimpy (`tests/cases/dkim`), with
//! mail-auth here, and those of other projects' suites.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use mail_auth::common::crypto::Ed25519Key;
use mail_auth::common::headers::HeaderWriter;
use mail_auth::dkim::{Canonicalization, DkimSigner};
use replyguard::auth::dkim::{DkimOutcome, DkimReport, Extent, Prepared, Proof};
use replyguard::auth::{Authenticator, Settings};
use replyguard::judge::evidence::AuthResult;
use replyguard::mail::time::Timestamp;

use super::dns::{Fault, TestDns, Times};
use crate::skipped::{corpus, without_corpus};

/// A day on which nothing here has expired yet.
pub const THEN: Timestamp = Timestamp::from_millis(1_600_000_000_000);

fn cases() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/dkim")
}

/// A message of `tests/cases/dkim`, with LF.
fn case(name: &str) -> String {
    fs::read_to_string(cases().join(name).with_extension("eml")).unwrap()
}

/// A server and who asks it; making the latter costs more than asking.
struct Bench {
    server: TestDns,
    authenticator: Authenticator,
}

impl Bench {
    fn new(zone: &str) -> Bench {
        let server = TestDns::start(zone);
        let timeout = Duration::from_secs(20);
        let settings = Settings { servers: vec![server.address()], timeout, best_guess: false };
        Bench { server, authenticator: Authenticator::new(&settings).unwrap() }
    }

    /// With the keys of `tests/cases/dkim`.
    fn with_keys() -> Bench {
        Bench::new(&fs::read_to_string(cases().join("zone")).unwrap())
    }

    async fn report(&self, message: impl AsRef<[u8]>, extent: Extent) -> DkimReport {
        self.authenticator.dkim(Prepared::read(message.as_ref(), extent, THEN)).await
    }

    async fn only(&self, message: &str) -> DkimOutcome {
        let mut report = self.report(message, Extent::Whole).await;
        assert_eq!(report.signatures.len(), 1);
        report.signatures.remove(0)
    }
}

/// `pass Message a.example` or `neutral Header a.example: the body is not the one signed`.
fn shown(outcome: &DkimOutcome) -> String {
    let mut text = format!("{} {:?}", outcome.result, outcome.proof);
    text.extend(outcome.domain.iter().map(|domain| format!(" {domain}")));
    if !outcome.reason.is_empty() {
        write!(text, ": {}", outcome.reason).unwrap();
    }
    text
}

/// Goal: what dkimpy signed is verified, whatever the line ends, and what is refused is named.
#[tokio::test]
async fn signatures_of_another_signer_are_verified() {
    let bench = Bench::with_keys();
    let pass = "pass Message a.example";
    for (name, expected) in [
        ("simple-simple", pass),
        ("simple-relaxed", pass),
        ("relaxed-simple", pass),
        ("relaxed-relaxed", pass),
        ("short-key", pass),
        ("ed25519", pass),
        ("blank-end", pass),
        ("length", pass),
        ("identity", pass),
        ("identity-strict", "fail Nothing a.example: i= is not d=, as the key asks for"),
        ("weak-key", "policy Nothing a.example: the key has less than 1024 bits"),
        ("sha1", "policy Nothing a.example: rsa-sha1"),
    ] {
        let message = case(name);
        for message in [message.replace('\n', "\r\n"), message] {
            let outcome = bench.only(&message).await;
            assert_eq!(shown(&outcome), expected, "{name}");
            let passed = outcome.result == AuthResult::Pass;
            assert!(!passed || outcome.signs_from && outcome.signs_sender, "{name}");
        }
    }
}

/// Goal: each change of a signed message has its own name, and the header stays proven where
/// only the body changed.
#[tokio::test]
async fn what_was_changed_on_the_way_is_told() {
    let bench = Bench::with_keys();
    let footer = "neutral Header a.example: the body is not the one signed";
    let header = "fail Nothing a.example: the signature is not of this header and key";
    let partly = "policy Header a.example: l= leaves a part of the body unsigned";
    let changed = |name, from, to| case(name).replacen(from, to, 1);
    for (message, expected) in [
        (case("relaxed-relaxed") + "-- \nA list\n", footer),
        (case("relaxed-relaxed") + " \n\t\n", "pass Message a.example"),
        (case("relaxed-simple") + " \n", footer),
        (case("simple-simple") + "\n\n", "pass Message a.example"),
        (changed("relaxed-relaxed", "Subject: One", "Subject: [x] One"), header),
        (changed("relaxed-relaxed", "Subject: One", "SUBJECT :\t One"), "pass Message a.example"),
        (changed("simple-simple", "Subject: One", "SUBJECT: One"), header),
        (changed("relaxed-relaxed", "To:", "X-New: y\nTo:"), "pass Message a.example"),
        (changed("relaxed-relaxed", "From: Joe", "From: Eve <e@e.example>\nFrom: Joe"), header),
        (case("length") + "A footer\n", partly),
        (changed("length", "this is", "that is"), footer),
        (
            changed("length", "\tthis is the body.\n", ""),
            "permerror Nothing a.example: l= is longer than the body",
        ),
        (
            changed("relaxed-relaxed", "s=long", "s=gone"),
            "permerror Nothing a.example: no key is published",
        ),
    ] {
        assert_eq!(shown(&bench.only(&message).await), expected, "{message}");
    }
}

/// Goal: a signature is the same one however its Base64 is folded, and in whatever message it stands.
#[tokio::test]
async fn a_signature_is_known_again() {
    let bench = Bench::with_keys();
    let message = case("relaxed-relaxed");
    let signature = bench.only(&message).await.finding().signature;
    assert!(signature.is_some());
    let folded = message.replacen(" b=DQbDZ35", "\tb=DQ bD\r\n Z35", 1);
    assert_ne!(folded, message);
    let (header, _) = message.split_once("\n\n").unwrap();
    for same in [folded, format!("{header}\n\nAnother body.\n"), format!("X-New: y\n{message}")] {
        assert_eq!(bench.only(&same).await.finding().signature, signature, "{same}");
    }
    for other in [case("simple-simple"), message.replacen("b=DQbDZ35", "b=DQbDZ36", 1)] {
        assert_ne!(bench.only(&other).await.finding().signature, signature, "{other}");
    }
    let unreadable = message.replacen("b=DQbDZ35", "b=!", 1);
    assert_eq!(bench.only(&unreadable).await.finding().signature, None);
}

#[tokio::test]
async fn the_header_alone_is_proven_under_its_own_name() {
    let bench = Bench::with_keys();
    for (name, expected) in [
        ("simple-relaxed", "neutral Header a.example: the body is not there"),
        ("length", "neutral Header a.example: the body is not there"),
        ("weak-key", "policy Nothing a.example: the key has less than 1024 bits"),
    ] {
        let message = case(name);
        let (header, _) = message.split_once("\n\n").unwrap();
        for header in [header.to_owned(), format!("{header}\n"), format!("{header}\n\n")] {
            let report = bench.report(&header, Extent::Header).await;
            assert_eq!(shown(&report.signatures[0]), expected, "{name}");
        }
    }
    let forged = case("relaxed-relaxed").replace("Subject: One", "Subject: Two");
    let report = bench.report(&forged, Extent::Header).await;
    assert_eq!(report.signatures[0].proof, Proof::Nothing);
}

/// Goal: a From that the signature does not cover is not the signer's. Method: h= names From
/// once, or twice as over-signing does, and one is added on top or below.
#[tokio::test]
async fn only_fields_under_the_signature_are_signed() {
    // The key whose public half stands in the zone as `ed`.
    let mut pkcs8 = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
    pkcs8.extend(0..32);
    let key = |sign: &[&'static str]| {
        let key = Ed25519Key::from_pkcs8_maybe_unchecked_der(&pkcs8).unwrap();
        DkimSigner::from_key(key)
            .domain("a.example")
            .selector("ed")
            .headers(sign.to_vec())
            .header_canonicalization(Canonicalization::Relaxed)
            .body_canonicalization(Canonicalization::Relaxed)
    };
    let bench = Bench::with_keys();
    let plain = "From: joe@a.example\r\nSubject: x\r\n\r\nbody\r\n";
    let signed = |sign: &[&'static str], message: &str| {
        format!("{}{message}", key(sign).sign(message.as_bytes()).unwrap().to_header())
    };
    let once = signed(&["From", "Subject"], plain);
    let eve = "From: eve@e.example\r\n";
    for (message, result, signs_from, sign) in [
        (once.clone(), "pass", true, None),
        (format!("{eve}{once}"), "pass", false, Some("from-repeated")),
        (
            once.replace("Subject: x", &format!("{eve}Subject: x")),
            "fail",
            false,
            Some("from-repeated"),
        ),
        (format!("Fr om: eve@e.example\r\n{once}"), "pass", true, Some("from-disguised")),
        (signed(&["Subject"], plain), "permerror", false, None),
    ] {
        let report = bench.report(&message, Extent::Whole).await;
        let outcome = &report.signatures[0];
        assert_eq!(outcome.result.as_str(), result, "{message}\n{}", outcome.reason);
        assert_eq!((outcome.signs_from, outcome.signs_sender), (signs_from, false), "{message}");
        assert_eq!(report.author.sign.map(|sign| sign.as_str()), sign, "{message}");
    }
    let expiring = key(&["From"]).expiration(3600).sign(plain.as_bytes()).unwrap().to_header();
    let message = format!("{expiring}{plain}");
    let late = Timestamp::from_millis(4_000_000_000_000);
    let prepared = Prepared::read(message.as_bytes(), Extent::Whole, late);
    let report = bench.authenticator.dkim(prepared).await;
    let expected = "neutral Nothing a.example: expired";
    assert_eq!(shown(&report.signatures[0]), expected);
    assert_eq!(bench.only(&message).await.result, AuthResult::Pass);
}

#[tokio::test]
async fn keys_gone_revoked_broken_or_out_of_reach_are_told_apart() {
    let message = case("relaxed-relaxed");
    let name = "long._domainkey.a.example";
    let key = fs::read_to_string(cases().join("zone")).unwrap();
    let key = key.lines().find_map(|line| line.strip_prefix(&format!("{name} TXT "))).unwrap();
    let wrong = |reason| format!("permerror Nothing a.example: {reason}");
    for (record, expected) in [
        ("\"v=DKIM1; p=\"", wrong("the key was revoked")),
        ("\"v=DKIM1; k=rsa\"", wrong("the key record has no key")),
        ("\"v=DKIM2; p=x\"", wrong("another version of the key record")),
        ("\"hello\"", wrong("the key record is no tag list")),
        ("\"p=x; p=x\"", wrong("the key record is no tag list")),
        ("\"h=sha1; p=x\"", wrong("the key is not for SHA-256")),
        ("\"s=tlsrpt; p=x\"", wrong("the key is not for mail")),
        ("\"k=dsa; p=AAAA\"", wrong("the key cannot be read")),
        ("\"p=AAAA\"", "policy Nothing a.example: the key has less than 1024 bits".to_owned()),
    ] {
        let bench = Bench::new(&format!("{name} TXT {record}"));
        assert_eq!(shown(&bench.only(&message).await), expected, "{record}");
        let bench = Bench::new(&format!("{name} TXT {record}\n{name} TXT {key}"));
        assert_eq!(shown(&bench.only(&message).await), "pass Message a.example", "{record}");
    }
    let bench = Bench::with_keys();
    bench.server.fault(name, None, Fault::ServFail, Times::Always);
    let expected = format!("temperror Nothing a.example: TXT {name}: the server says SERVFAIL");
    assert_eq!(shown(&bench.only(&message).await), expected);
}

#[tokio::test]
async fn signatures_have_a_cap_and_keys_are_asked_once() {
    let bench = Bench::with_keys();
    let message = case("relaxed-relaxed");
    let end = message.find("From: Joe").unwrap();
    let signature = &message[..end];
    let report = bench.report(&format!("{}{message}", signature.repeat(199)), Extent::Whole).await;
    assert_eq!(report.signatures.len(), 10);
    assert_eq!(report.signatures_left_out, 190);
    assert!(report.signatures.iter().all(|outcome| outcome.result == AuthResult::Pass));
    assert_eq!(bench.server.asked(), ["TXT long._domainkey.a.example"]);
}

#[tokio::test]
async fn a_signature_that_cannot_be_used_says_why_and_asks_nothing() {
    let bench = Bench::with_keys();
    let good = "v=1; a=rsa-sha256; d=a.example; s=long; h=from; bh=AAAA; b=AAAA";
    for (from, to, reason) in [
        ("v=1; ", "", "no version"),
        ("v=1", "v=2", "another version"),
        ("rsa-sha256", "rsa-md5", "another algorithm"),
        ("d=a.example; ", "", "no domain"),
        ("d=a.example", "d=a..example", "d= is no domain"),
        ("d=a.example", "d=a.example; i=@b.example", "i= is not within d="),
        ("d=a.example", "d=a.example; i=joe", "i= is not within d="),
        ("s=long; ", "", "no selector"),
        ("h=from; ", "", "no list of fields"),
        ("h=from", "h=to:subject", "From is not signed"),
        ("h=from", "h=from; q=http", "another way to query keys"),
        ("h=from", "h=from; c=nofws", "another canonical form"),
        ("h=from", "h=from; t=20; x=20", "x= is not after t="),
        ("h=from", "h=from; l=-1", "a number that is none"),
        ("h=from", "h=from; h=from", "no tag list"),
        ("bh=AAAA; ", "", "no body hash"),
        ("b=AAAA", "b=", "a signature that is no Base64"),
        ("b=AAAA", "b=!", "a signature that is no Base64"),
        ("v=1", "v", "no tag list"),
    ] {
        let value = good.replacen(from, to, 1);
        let message = format!("DKIM-Signature: {value}\r\nFrom: joe@a.example\r\n\r\nx\r\n");
        let outcome = bench.only(&message).await;
        assert_eq!(
            (outcome.result, outcome.reason.as_str()),
            (AuthResult::PermError, reason),
            "{value}"
        );
    }
    assert_eq!(bench.server.asked(), Vec::<String>::new());
}

/// Messages of mail-auth's own suite, each under its zone; `None` where they are missing.
pub fn messages_of_mail_auth() -> Option<Vec<Named>> {
    let folder = corpus("auth/dkim/mail-auth-own");
    let Ok(entries) = fs::read_dir(&folder) else {
        without_corpus(&format!("no {}", folder.display()));
        return None;
    };
    let read = |entry: fs::DirEntry| {
        let bytes = fs::read(entry.path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let (keys, _) = text.split_once("\n\n").unwrap();
        let mut zone = String::new();
        for line in keys.lines() {
            let (name, key) = line.split_once(' ').unwrap();
            writeln!(zone, "{name} TXT \"{key}\"").unwrap();
        }
        (zone, bytes[keys.len() + 2..].to_vec())
    };
    Some(entries.flatten().map(read).collect())
}

/// A message under a name.
type Named = (String, Vec<u8>);

/// Messages of dkimpy's and mailauth's suites by their names, and their zone; `None` where they are
/// missing.
pub fn messages_of_suites() -> Option<(String, Vec<Named>)> {
    let folder = corpus("auth");
    let Ok(key) = fs::read_to_string(folder.join("dkim/test.txt")) else {
        without_corpus(&format!("no {}", folder.display()));
        return None;
    };
    let key = key.trim();
    let eximtest = fs::read_to_string(folder.join("dkim/eximtest.dns")).unwrap();
    let zone = format!(
        "test._domainkey.example.com TXT \"{key}\"
        test._domainkey.example.biz TXT \"{key}\"
        test._domainkey.football.example.com TXT \"{key}\"
        brisbane._domainkey.football.example.com TXT \"k=ed25519; \
         p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\"
        sed._domainkey.test.ex TXT \"{}\"",
        eximtest.trim(),
    );
    let mut names = BTreeSet::new();
    for part in ["dkim", "dkim-mailauth"] {
        for entry in fs::read_dir(folder.join(part)).unwrap().flatten() {
            let name = format!("{part}/{}", entry.file_name().to_str().unwrap());
            let is_message = ["message", "msg", "eml"].iter().any(|word| name.contains(word));
            if is_message && !name.ends_with(".mbox") && !name.contains("/arc-") {
                names.insert(name);
            }
        }
    }
    let read = |name: String| {
        let bytes = fs::read(folder.join(&name)).unwrap();
        (name, bytes)
    };
    Some((zone, names.into_iter().map(read).collect()))
}

/// What the suites say of a message's signatures; nothing of what has none.
pub fn expected(name: &str) -> &'static [&'static str] {
    EXPECTED.iter().find(|(named, _)| *named == name).map(|(_, wanted)| *wanted).unwrap_or_default()
}

/// Goal: what mail-auth's own suite verifies is verified here too: real messages of real senders.
#[tokio::test]
async fn messages_of_mail_auth_are_verified() {
    let Some(messages) = messages_of_mail_auth() else { return };
    let mut passed = 0;
    for (zone, message) in messages {
        let bench = Bench::new(&zone);
        let prepared = Prepared::read(&message, Extent::Whole, THEN);
        for outcome in bench.authenticator.dkim(prepared).await.signatures {
            assert_eq!(outcome.result, AuthResult::Pass, "{}", shown(&outcome));
            passed += 1;
        }
    }
    assert_eq!(passed, 8);
}

/// Goal: the messages of dkimpy's and mailauth's suites have the results of these suites. Method: a
/// table that names every message of both folders, those without a signature and those whose key
/// is not in the corpus too; it is printed.
#[tokio::test]
async fn messages_of_dkimpy_and_mailauth_have_their_results() {
    let Some((zone, messages)) = messages_of_suites() else { return };
    let bench = Bench::new(&zone);
    // Nothing that the table expects may be missing, or it would prove less than it says.
    for (name, _) in EXPECTED {
        assert!(messages.iter().any(|(there, _)| there == name), "{name}");
    }
    let mut wrong = 0;
    for (name, bytes) in messages {
        let prepared = Prepared::read(&bytes, Extent::Whole, THEN);
        let report = bench.authenticator.dkim(prepared).await;
        let results: Vec<&str> =
            report.signatures.iter().map(|outcome| outcome.result.as_str()).collect();
        let wanted = expected(&name);
        let is_right = results == wanted;
        wrong += usize::from(!is_right);
        let shown: Vec<String> = report.signatures.iter().map(shown).collect();
        let mark = if is_right { "ok   " } else { "WRONG" };
        println!("{mark} {name:36} wanted {wanted:?}, found {shown:?}");
    }
    assert_eq!(wrong, 0);
}

/// The results of signed messages: those of dkimpy 1.1.8's and of mailauth's tests.
const EXPECTED: &[(&str, &[&str])] = &[
    ("dkim/rfc6376.signed.msg", &["pass", "pass"]),
    ("dkim/rfc6376.signed.rsa.msg", &["pass"]),
    ("dkim/rfc6376.signed.no_t.msg", &["fail"]),
    ("dkim/test.message_signed", &["pass"]),
    ("dkim/testcomma.message", &["pass"]),
    ("dkim/ed25519test2.msg", &["pass"]),
    ("dkim/test.message_sub", &["fail"]),
    ("dkim/test.message_multi", &["fail"]),
    ("dkim/test.message_multi2", &["fail"]),
    ("dkim/test.message_np1", &["fail"]),
    ("dkim/test.message_np2", &["fail"]),
    ("dkim/test.message.baddomain", &["permerror"]),
    ("dkim-mailauth/ec-signed.eml", &["pass", "pass"]),
    // Messages of real senders whose keys are not in the corpus.
    ("dkim/test2.message", &["permerror"]),
    ("dkim-mailauth/authtest.eml", &["permerror"]),
    ("dkim-mailauth/bimi.eml", &["permerror", "permerror"]),
    ("dkim-mailauth/message2.eml", &["permerror"]),
    ("dkim-mailauth/message3.eml", &["permerror", "permerror"]),
    ("dkim-mailauth/message4.eml", &["permerror"]),
    ("dkim-mailauth/zbimi.eml", &["permerror"]),
    ("dkim-mailauth/zproov.eml", &["permerror"]),
];
