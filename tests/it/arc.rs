//! ARC chains against real DNS on loopback: sealed here with mail-auth's cryptography over fields
//! written in their canonical form, real ones of other projects' suites, and what a seal proves of
//! a bounce's recipient.

use std::collections::HashSet;
use std::fmt::Write;
use std::fs;

use mail_auth::common::crypto::{Ed25519Key, HashAlgorithm, SigningKey};
use mail_auth::{AuthenticatedMessage, DkimResult, MessageAuthenticator};
use replyguard::auth::arc::{ArcReport, Prepared};
use replyguard::auth::{Authenticator, Settings};
use replyguard::judge::evidence::AuthResult;
use replyguard::mail::time::Timestamp;

use super::dns::{Fault, TestDns, Times};
use super::evidence::{bounce, desk_with, headers_only};
use super::spf::mail_auth;
use crate::skipped::{corpus, without_corpus};

/// A day on which nothing here has expired yet.
const THEN: Timestamp = Timestamp::from_millis(1_600_000_000_000);

/// The public half of `key()`.
const PUBLIC: &str = "v=DKIM1; k=ed25519; p=A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";

fn key() -> Ed25519Key {
    let mut pkcs8 = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
    pkcs8.extend(0..32);
    Ed25519Key::from_pkcs8_maybe_unchecked_der(&pkcs8).unwrap()
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// A message that hosts seal one after the other. Its fields stand in relaxed form, so what is signed
/// is what is written.
#[derive(Clone)]
pub struct Letter {
    fields: Vec<(String, String)>,
    body: String,
    sets: Vec<[(String, String); 3]>,
}

impl Letter {
    pub fn from(author: &str) -> Letter {
        let fields = [
            ("from", author),
            ("to", "list@list.example"),
            ("subject", "Hello"),
            ("message-id", "<1@bank.example>"),
        ];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Letter { fields, body: "Hello\r\n".to_owned(), sets: Vec::new() }
    }

    /// Seals with `results`, as a host that found the chain before it as `cv` says.
    pub fn sealed(self, sealer: &str, results: &str, cv: &str) -> Letter {
        self.sealed_over("from:to:subject:message-id", sealer, results, cv)
    }

    fn sealed_over(mut self, signed: &str, sealer: &str, results: &str, cv: &str) -> Letter {
        let field = |(name, value): &(String, String)| format!("{name}:{value}");
        let instance = self.sets.len() + 1;
        let bh = base64(HashAlgorithm::Sha256.hash(self.body.as_bytes()).as_ref());
        let what = format!("i={instance}; a=ed25519-sha256; d={sealer}; s=ed;");
        let results = format!("i={instance}; {sealer}; {results}");
        let results = ("arc-authentication-results".to_owned(), results);
        let mut signature = format!("{what} c=relaxed/relaxed; h={signed}; bh={bh}; b=");
        let covered = self.fields.iter().filter(|(name, _)| signed.split(':').any(|s| s == name));
        let mut covered: Vec<String> = covered.map(field).collect();
        covered.push(format!("arc-message-signature:{signature}"));
        signature += &base64(&key().sign(covered.join("\r\n").as_bytes()).unwrap());
        let signature = ("arc-message-signature".to_owned(), signature);
        let mut seal = format!("{what} cv={cv}; b=");
        let mut covered: Vec<String> = self.sets.iter().flatten().map(field).collect();
        covered.extend([field(&results), field(&signature), format!("arc-seal:{seal}")]);
        seal += &base64(&key().sign(covered.join("\r\n").as_bytes()).unwrap());
        self.sets.push([results, signature, ("arc-seal".to_owned(), seal)]);
        self
    }

    pub fn text(&self) -> String {
        let sets = self.sets.iter().rev().flatten().chain(&self.fields);
        let header: String = sets.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{header}\r\n{}", self.body)
    }
}

struct Bench {
    server: TestDns,
    authenticator: Authenticator,
    theirs: MessageAuthenticator,
}

impl Bench {
    fn new(zone: &str) -> Bench {
        let server = TestDns::start(zone);
        let timeout = std::time::Duration::from_secs(20);
        let settings = Settings { servers: vec![server.address()], timeout, best_guess: false };
        let theirs = mail_auth(&server);
        Bench { server, authenticator: Authenticator::new(&settings).unwrap(), theirs }
    }

    async fn report(&self, message: &str) -> ArcReport {
        self.authenticator.arc(Prepared::read(message.as_bytes(), THEN)).await
    }

    /// What mail-auth says of the chain: pass or not.
    async fn passes_theirs(&self, message: &str) -> bool {
        let parsed = AuthenticatedMessage::parse(message.as_bytes()).unwrap();
        *self.theirs.verify_arc(&parsed).await.result() == DkimResult::Pass
    }
}

fn zone() -> String {
    ["a.example", "b.example", "c.example"]
        .iter()
        .map(|name| format!("ed._domainkey.{name} TXT \"{PUBLIC}\"\n"))
        .collect()
}

fn shown(report: &ArcReport) -> String {
    let mut text = report.result.to_string();
    report.sets.iter().for_each(|set| write!(text, " {}", set.sealer).unwrap());
    if !report.reason.is_empty() {
        write!(text, ": {}", report.reason).unwrap();
    }
    text
}

/// Goal: chains hold or not as RFC 8617 §5.2 says, each fault has its name, and mail-auth's verdict
/// is the same but where the comment says why not.
#[tokio::test]
async fn a_chain_holds_when_every_seal_does_and_the_last_signature_covers_the_message() {
    let bench = Bench::new(&zone());
    let none = "dkim=pass header.d=bank.example";
    let one = Letter::from("joe@bank.example").sealed("a.example", none, "none");
    let two = one.clone().sealed("b.example", "arc=pass", "pass");
    let three = two.clone().sealed("c.example", "none", "pass");
    let changed = |letter: &Letter, from: &str, to: &str| {
        let text = letter.text();
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    };
    // A list that changed the subject before it sealed: the first signature no longer holds.
    let mut listed = one.clone();
    listed.fields[2].1 = "[list] Hello".to_owned();
    let listed = listed.sealed("b.example", "none", "pass");
    let signature = "fail a.example: the last signature: it is not of these fields and this key";
    for (message, expected) in [
        (Letter::from("joe@bank.example").text(), "none"),
        (one.text(), "pass a.example"),
        (two.text(), "pass a.example b.example"),
        (three.text(), "pass a.example b.example c.example"),
        (listed.text(), "pass a.example b.example"),
        (one.text().replace("\r\n", "\n"), "pass a.example"),
        (one.text() + "\r\n \t\r\n", "pass a.example"),
        (changed(&one, "subject: Hello", "SUBJECT:  Hello"), "pass a.example"),
        (changed(&one, "subject: Hello", "subject: Bye"), signature),
        (
            changed(&one, "\r\n\r\nHello", "\r\n\r\nBye"),
            "fail a.example: the body is not the one signed",
        ),
        (
            changed(&one, "dkim=pass", "dkim=fail"),
            "fail a.example: seal 1: it is not of these fields and this key",
        ),
        (
            changed(&two, "dkim=pass header.d=bank", "dkim=pass header.d=tank"),
            "fail a.example b.example: seal 2: it is not of these fields and this key",
        ),
        (
            one.clone().sealed("b.example", "none", "fail").text(),
            "fail a.example b.example: a seal says that the chain before it did not hold",
        ),
        (
            one.clone().sealed("b.example", "none", "none").text(),
            "fail a.example b.example: a seal says that the chain before it did not hold",
        ),
        (
            Letter::from("joe@bank.example").sealed("a.example", "none", "pass").text(),
            "fail a.example: the first seal says that there was a chain before it",
        ),
        (
            changed(&two, "arc-seal: i=1;", "x-seal: i=1;"),
            "fail: instances are missing or there twice",
        ),
        (changed(&two, "i=1;", "i=3;"), "fail: instances are missing or there twice"),
        (
            changed(&one, "arc-seal: i=1", "arc-seal: i=0"),
            "fail: an ARC field without its instance",
        ),
        (changed(&one, "cv=none", "h=from; cv=none"), "fail: a seal with h="),
        (
            format!("from: eve@evil.example\r\n{}", one.text()),
            "fail a.example: a From is not signed",
        ),
        (
            Letter::from("joe@bank.example")
                .sealed_over("to:subject", "a.example", "none", "none")
                .text(),
            "fail a.example: From is not signed",
        ),
        (
            Letter::from("joe@bank.example").sealed("x.example", none, "none").text(),
            "fail x.example: the last signature: no key is published",
        ),
    ] {
        let found = bench.report(&message).await;
        assert_eq!(shown(&found), expected, "{message}");
        // They believe a signature without From, and one more From on top of a signed one; and
        // they fail lines of white space at the end of the body.
        let differs = expected.contains("From is not signed") || message.ends_with(" \t\r\n");
        let passes = found.result == AuthResult::Pass;
        assert_eq!(bench.passes_theirs(&message).await, passes != differs, "{message}");
    }
}

#[tokio::test]
async fn a_chain_has_bounds_and_trouble_is_no_fault_of_it() {
    let bench = Bench::new(&zone());
    let one = Letter::from("joe@bank.example").sealed("a.example", "none", "none");
    let mut long = one.clone();
    for _ in 1..50 {
        long = long.sealed("b.example", "none", "pass");
    }
    assert_eq!(bench.report(&long.text()).await.result, AuthResult::Pass);
    assert_eq!(bench.server.asked().len(), 2);
    let longer = long.sealed("c.example", "none", "pass").text();
    assert_eq!(shown(&bench.report(&longer).await), "fail: an ARC field without its instance");
    let heavy = format!("arc-seal: i=2; x={}\r\n{}", "y".repeat(200_000), one.text());
    assert_eq!(shown(&bench.report(&heavy).await), "fail: the chain is too long");

    let bench = Bench::new(&zone());
    bench.server.fault("ed._domainkey.a.example", None, Fault::ServFail, Times::Always);
    assert_eq!(
        shown(&bench.report(&one.text()).await),
        "temperror a.example: TXT ed._domainkey.a.example: the server says SERVFAIL"
    );
}

/// Goal: chains of the suites of mail-auth and of mailauth have the results of these suites.
/// Method: their keys as a zone; those of mailauth's messages stand in mail-auth's first one. The
/// table is printed.
#[tokio::test]
async fn chains_of_other_suites_have_their_results() {
    let folder = corpus("auth");
    if !folder.join("arc-mail-auth-own").exists() {
        without_corpus(&format!("no {}", folder.display()));
        return;
    }
    let read = |path: &str| String::from_utf8(fs::read(folder.join(path)).unwrap()).unwrap();
    let mut zone = String::new();
    let own = ["001.txt", "002.txt"].map(|name| {
        let text = read(&format!("arc-mail-auth-own/{name}"));
        let (keys, message) = text.split_once("\n\n").unwrap();
        for line in keys.lines() {
            let (name, key) = line.split_once(' ').unwrap();
            writeln!(zone, "{name} TXT \"{key}\"").unwrap();
        }
        (format!("arc-mail-auth-own/{name}"), message.to_owned(), "pass")
    });
    // arc-fail and arc-fail2 have a changed field each, arc-fail3 a seal with cv=fail.
    let theirs = [
        ("arc-pass", "pass"),
        ("arc-pass2", "pass"),
        ("arc-fail", "fail"),
        ("arc-fail2", "fail"),
        ("arc-fail3", "fail"),
    ]
    .map(|(name, expected)| {
        let path = format!("dkim-mailauth/{name}.eml");
        let message = read(&path);
        (path, message, expected)
    });
    let bench = Bench::new(&zone);
    let mut wrong = 0;
    for (name, message, expected) in own.into_iter().chain(theirs) {
        let found = bench.report(&message).await;
        let is_right = found.result.as_str() == expected;
        wrong += usize::from(!is_right);
        let mark = if is_right { "ok   " } else { "WRONG" };
        println!("{mark} {name:32} expected {expected:5} {}", shown(&found));
        let results = |set: &replyguard::auth::arc::ArcSet| set.results.is_some();
        assert!(found.sets.iter().all(results), "{name}");
    }
    assert_eq!(wrong, 0);
}

/// What stands on top of a forwarded message: the forwarder's address fails SPF of the author.
const ARRIVED: &str = "Return-Path: <joe@bank.example>\r\n\
    Authentication-Results: mx.uni.example; spf=fail smtp.mailfrom=joe@bank.example; dkim=none\r\n\
    Received: from b.example (b.example [192.0.2.66])\r\n\tby mx.uni.example (Postfix) with ESMTP \
    id 1A\r\n\tfor <gone@uni.example>; Sat, 12 Sep 2020 11:59:59 +0000 (UTC)\r\n";

/// Goal: design sentence "ARC pass of a sealer named in the configuration whose sealed results say
/// one of the above", and nothing more than that.
#[tokio::test]
async fn a_named_sealer_proves_whom_he_found_proven() {
    let joe = "joe@bank.example";
    let spf = "spf=pass smtp.mailfrom=joe@bank.example";
    let letter = || Letter::from(joe);
    let sealed = |by: &str, results: &str| letter().sealed(by, results, "none");
    let failed = "quarantine failed spf-fail";
    let desk = |named: &[&str]| {
        let named: HashSet<String> = named.iter().map(|name| (*name).to_owned()).collect();
        let desk = desk_with(move |policy, _| policy.arc_sealers = named);
        desk.add_zone(&zone());
        desk
    };
    for (named, letter, expected) in [
        (&["b.example"][..], sealed("b.example", spf), "deliver authenticated spf-domain-only"),
        (
            &["b.example"],
            sealed("b.example", "dkim=pass header.d=bank.example"),
            "deliver authenticated dkim",
        ),
        (
            &["b.example"],
            sealed("b.example", "dmarc=pass header.from=bank.example"),
            "deliver authenticated dmarc",
        ),
        // Another address of the domain.
        (
            &["b.example"],
            sealed("b.example", "spf=pass smtp.mailfrom=ann@bank.example"),
            "deliver authenticated spf-domain-only",
        ),
        (&["b.example"], sealed("b.example", "spf=fail smtp.mailfrom=joe@bank.example"), failed),
        (&["b.example"], sealed("b.example", "spf=pass smtp.helo=bank.example"), failed),
        (&["b.example"], sealed("b.example", "dkim=pass header.d=evil.example"), failed),
        // Anybody can seal anything.
        (&[], sealed("b.example", spf), failed),
        (&["b.example"], sealed("a.example", spf), failed),
        (&["b.example"], sealed("a.example", spf).sealed("b.example", "none", "pass"), failed),
        (&["a.example"], sealed("a.example", spf).sealed("b.example", "none", "pass"), failed),
        (
            &["a.example", "b.example"],
            sealed("a.example", spf).sealed("b.example", "none", "pass"),
            "deliver authenticated spf-domain-only",
        ),
    ] {
        let desk = desk(named);
        let message = bounce(joe, &format!("{ARRIVED}{}", letter.text()), "message/rfc822");
        assert_eq!(desk.judged(joe, &message).await, expected, "{named:?}\n{}", letter.text());
    }
    let desk = desk(&["b.example"]);
    let broken = sealed("b.example", spf).text().replace("Hello", "Buy");
    let message = bounce(joe, &format!("{ARRIVED}{broken}"), "message/rfc822");
    assert_eq!(desk.judged(joe, &message).await, failed);
    // Without its body the last signature cannot hold.
    let header = headers_only(&format!("{ARRIVED}{}", sealed("b.example", spf).text()));
    let message = bounce(joe, &header, "text/rfc822-headers");
    assert_eq!(desk.judged(joe, &message).await, failed);
}
