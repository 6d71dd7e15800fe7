//! Reading measured against what real servers sent: Postfix 3.7.11, Exim 4.96, Dovecot 2.3.19.1
//! with Pigeonhole 0.5.19, captured on loopback.
//!
//! Goal: every form of these servers is understood to the last key. Method: one paragraph for each
//! file in `tests/captures`, compared in full.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::skipped;
use replyguard::judge::decide::decide;
use replyguard::judge::evidence::Evidence;
use replyguard::judge::fingerprint::FingerprintKey;
use replyguard::judge::original::{Key, Original};
use replyguard::judge::policy::{Mode, Policy};
use replyguard::judge::site::Site;
use replyguard::judge::{Case, read_alone};
use replyguard::mail::address::{Address, Domain, ForwardPath, ReversePath};
use replyguard::mail::envelope::{Client, Envelope, MailFrom, Parameters, Recipient};
use replyguard::mail::header::Completeness;
use replyguard::mail::message::Message;
use replyguard::mail::time::Timestamp;

/// The site that the captures come from.
fn site() -> Site {
    Site {
        hosts: ["mx.local.test".into(), "ex.local.test".into()].into(),
        authserv_ids: ["mx.local.test".into(), "ex.local.test".into()].into(),
        authserv_stripped: true,
        networks: vec!["127.0.0.0/8".parse().unwrap()],
        ..Site::default()
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures")
}

/// What was read, as it stands in `EXPECTED`.
fn shown(name: &str, case: &Case) -> String {
    let Original { keys, findings, return_path, failed_recipients, found_as, .. } = &case.original;
    let mut out = format!("{name}\n  {}", case.class);
    if let Some(action) = case.class.dsn_action() {
        write!(out, ".{}", action.as_str()).unwrap();
    }
    writeln!(out, " {}", found_as.as_str()).unwrap();
    let keys: Vec<String> = keys
        .iter()
        .map(|key| match key {
            Key::QueueId { host, id } => format!("{host}/{id}"),
            Key::MessageId { id, named_by } => format!("<{id}>:{named_by:?}"),
            Key::EnvelopeId(id) => format!("envid:{id}"),
        })
        .collect();
    let path = return_path.iter().map(|path| format!("<{path}>")).collect();
    let failed = failed_recipients.iter().map(|address| address.to_string()).collect();
    let found = findings.iter().flat_map(|findings| {
        let spf = findings.spf.iter().map(|finding| format!("spf={}", finding.result));
        let dmarc = findings.dmarc.iter().map(|finding| format!("dmarc={}", finding.result));
        let own = findings.own_submission.iter().map(|_| "own".to_owned());
        spf.chain(dmarc).chain(own).collect::<Vec<_>>()
    });
    let lines: [(&str, Vec<String>); 4] =
        [("keys", keys), ("from", path), ("failed", failed), ("found", found.collect())];
    for (what, values) in lines.iter().filter(|(_, values)| !values.is_empty()) {
        writeln!(out, "  {what} {}", values.join(" ")).unwrap();
    }
    out
}

#[test]
fn every_form_of_real_servers_is_understood() {
    let mut paths: Vec<_> = fs::read_dir(folder()).unwrap().map(|f| f.unwrap().path()).collect();
    paths.sort();
    let read = paths.iter().map(|path| {
        let message = Message::new(fs::read(path).unwrap(), Completeness::Whole);
        let case = read_alone(&message, &site(), &FingerprintKey::new([1; 32]));
        shown(path.file_stem().unwrap().to_str().unwrap(), &case)
    });
    let read: Vec<String> = read.collect();
    let expected: Vec<String> = EXPECTED
        .trim_start()
        .split_inclusive("\n\n")
        .map(|row| row.trim_end().to_owned())
        .collect();
    assert_eq!(read.len(), expected.len());
    for (read, expected) in read.iter().zip(&expected) {
        assert_eq!(read.trim_end(), expected);
    }
}

/// Goal: a postmaster gets his copies, double bounces too, and nobody else does: what had a null
/// reverse-path is answered by nothing (RFC 5321 §4.5.5). Method: the three captures, each to the
/// postmaster, to a mailbox of ours, and to somebody outside.
#[test]
fn double_bounces_go_to_our_own_desk_and_nowhere_else() {
    let site = Site { domains: [Domain::parse("local.test").unwrap()].into(), ..site() };
    let policy = Policy { mode: Mode::Enforce, site, ..Policy::default() };
    let outcome = |name: &str, to: ForwardPath| {
        let path = folder().join(name).with_extension("eml");
        let message = Message::new(fs::read(path).unwrap(), Completeness::Whole);
        let case = read_alone(&message, &policy.site, &FingerprintKey::new([1; 32]));
        let recipient =
            Recipient { path_text: to.to_string(), path: to, parameters: Parameters::default() };
        let mail = MailFrom {
            path: ReversePath::Null,
            path_text: "<>".to_owned(),
            parameters: Parameters::default(),
        };
        let envelope = Envelope { client: Client::default(), mail, recipients: vec![recipient] };
        let evidence = Evidence {
            findings: case.original.findings.iter().cloned().collect(),
            ..Evidence::default()
        };
        let decision = decide(&envelope, &case, &evidence, &policy, Timestamp::default()).remove(0);
        format!("{} {}", decision.action, decision.reason)
    };
    let to = |text: &str| ForwardPath::Address(Address::parse(text).unwrap());
    for (name, outside) in [
        ("double-bounce-postmaster-124-sink", "deliver unauthenticated"),
        ("double-bounce-postmaster-125-sink", "quarantine null-subject"),
        ("double-bounce-postmaster-127-sink", "quarantine null-subject"),
    ] {
        let postmaster = ForwardPath::Postmaster("postmaster".to_owned());
        assert_eq!(outcome(name, postmaster), "deliver local-postmaster", "{name}");
        for desk in ["postmaster@mx.local.test", "abuse@mx.local.test"] {
            assert_eq!(outcome(name, to(desk)), "deliver local-postmaster", "{name} {desk}");
        }
        for own in ["postmaster@local.test", "double-bounce@local.test"] {
            assert_eq!(outcome(name, to(own)), "deliver local-domain", "{name} {own}");
        }
        // Not every mailbox at a host of ours, and no desk of somebody else.
        let elsewhere =
            if name.contains("124") { "bounce-12820@bank.test" } else { "postmaster@bank.test" };
        assert_eq!(outcome(name, to(elsewhere)), outside, "{name} {elsewhere}");
    }
}

/// Goal: no capture is missing here, and a report goes to the reverse-path that was read from it.
/// Method: file by file, where they lie, with the SMTP dialogues beside them.
#[test]
fn the_captures_are_all_here() {
    let shared = skipped::corpus("mta");
    let Ok(entries) = fs::read_dir(&shared) else {
        skipped::without_corpus(&format!("no {}", shared.display()));
        return;
    };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "eml"));
    assert_eq!(names.len(), 29);
    let mut dialogues = 0;
    for path in names {
        let here = folder().join(path.file_name().unwrap());
        let bytes = fs::read(&path).unwrap();
        assert!(bytes == fs::read(&here).unwrap(), "{}", here.display());
        let Ok(dialogue) = fs::read_to_string(path.with_extension("env")) else { continue };
        let line = |begin: &str| {
            let mut lines = dialogue.lines().filter_map(|line| line.strip_prefix(begin));
            let (path, _) = lines.next().unwrap().split_once('>').unwrap();
            path.to_owned()
        };
        let case = read_alone(
            &Message::new(bytes, Completeness::Whole),
            &site(),
            &FingerprintKey::new([1; 32]),
        );
        if case.class.dsn_action().is_some() {
            assert_eq!(line("C: MAIL FROM:<"), "", "{}", path.display());
            let return_path = case.original.return_path.unwrap().to_string();
            assert_eq!(line("C: RCPT TO:<"), return_path, "{}", path.display());
            dialogues += 1;
        }
    }
    assert_eq!(dialogues, 11);
}

/// One paragraph a file: class and how the subject message was found, what names it, its
/// reverse-path, whom the report is about, and what our own lines say of it. The Exim captures
/// came over loopback, so they are own submissions.
const EXPECTED: &str = "
bounce-exim-big
  dsn.failed rfc822-headers
  keys ex.local.test/1xUpIe-0000o0-2N <x5@bank.test>:EmbeddedHeader
  from <v3@bank.test>
  failed unknown-3@remote.test
  found own

bounce-exim-overquota
  dsn.failed rfc822
  keys ex.local.test/1xUpIZ-0000nJ-18 <x4@bank.test>:EmbeddedHeader
  from <v2@bank.test>
  failed full@ex.test
  found own

bounce-exim-relay
  dsn.failed rfc822
  keys ex.local.test/1xUpID-0000au-0O <x3@bank.test>:EmbeddedHeader
  from <v1@bank.test>
  failed unknown-1@remote.test
  found own

bounce-loop-toomany
  dsn.failed rfc822
  keys ex.local.test/1xUpOk-0003m3-1V <xloop@example.net>:EmbeddedHeader
  from <orig@example.net>
  failed efwd@ex.test
  found spf=fail dmarc=fail

bounce-postfix-big
  dsn.failed rfc822-headers
  keys mx.local.test/80F79514053 <b3@bank.test>:EmbeddedHeader
  from <victim3@bank.test>
  failed unknown-2@remote.test
  found spf=fail dmarc=fail

bounce-postfix-hoplimit
  dsn.failed rfc822
  keys mx.local.test/E1B5E514123 <l1@bank.test>:EmbeddedHeader
  from <victim7@bank.test>
  failed hop@loop.test
  found spf=fail dmarc=fail

bounce-postfix-lmtp-overquota
  dsn.failed rfc822
  keys mx.local.test/57C17514014 <b2@bank.test>:EmbeddedHeader
  from <victim2@bank.test>
  failed full@local.test
  found spf=fail dmarc=fail

bounce-postfix-no-msgid
  dsn.failed rfc822
  keys mx.local.test/178635140A2
  from <victim5@bank.test>
  failed unknown-4@remote.test
  found spf=fail dmarc=fail

bounce-postfix-relay-unknown
  dsn.failed rfc822
  keys mx.local.test/CBC34514015 <b1@bank.test>:EmbeddedHeader
  from <victim@bank.test>
  failed unknown-1@remote.test
  found spf=fail dmarc=fail

bounce-postfix-ret-hdrs
  dsn.failed rfc822-headers
  keys mx.local.test/45311514074 <b4@bank.test>:EmbeddedHeader envid:env+44
  from <victim4@bank.test>
  failed unknown-3@remote.test
  found spf=fail dmarc=fail

bounce-proxy-dsn-mismatch-501
  dsn.failed rfc822
  keys mx.local.test/2A074514003 <xloop@example.net>:EmbeddedHeader
  from <orig@example.net>
  failed efwd@ex.test
  found spf=fail dmarc=fail

double-bounce-postmaster-124-sink
  dsn.failed rfc822-headers
  keys mx.local.test/9E6FF514032 <b12820@bank.test>:EmbeddedHeader
  from <bounce-12820@bank.test>
  failed unknown-1@remote.test
  found spf=fail dmarc=fail

double-bounce-postmaster-125-sink
  dsn.failed rfc822
  keys mx.local.test/A6D24514037 <20261121175543.A6D24514037@mx.local.test>:EmbeddedHeader
  from <>
  failed bounce-12820@bank.test
  found own

double-bounce-postmaster-127-sink
  dsn.failed rfc822
  keys mx.local.test/BD904514036 <dovecot-sieve-1795283743-761402-2@vm>:EmbeddedHeader
  from <>
  failed vacsub-12820@example.net
  found own

dsn-exim-delayed
  dsn.delayed rfc822-headers
  keys ex.local.test/1xUpI8-0000YL-1d <x1@bank.test>:EmbeddedHeader <r9@bank.test>:References
  from <w@bank.test>
  failed vic@ex.test
  found own

dsn-postfix-delayed
  dsn.delayed rfc822-headers
  keys mx.local.test/BCA7C5140C2 <d1@bank.test>:EmbeddedHeader
  from <victim6@bank.test>
  failed later-1@remote.test
  found spf=fail dmarc=fail

forward-exim-redirect-hop1
  personal none

forward-postfix-alias-hop1
  personal none

forward-sieve-final-in-bob-inbox
  personal none

forward-sieve-hop.1
  personal none

forward-sieve-hop.2
  personal none

loop-hop20
  personal none

vacation-exim-no-msgid
  auto-reply none

vacation-exim
  auto-reply reference
  keys <x1@bank.test>:InReplyTo <r9@bank.test>:References

vacation-pigeonhole-env-recipient
  auto-reply reference
  keys <e77@example.net>:InReplyTo

vacation-pigeonhole-msgid
  auto-reply reference
  keys <orig-1@example.net>:InReplyTo <r1@example.net>:References <r0@example.net>:References

vacation-pigeonhole-no-msgid
  auto-reply none

vacation-pigeonhole-nosubj
  auto-reply reference
  keys <orig-3@example.net>:InReplyTo

vacation-pigeonhole-submission
  auto-reply reference
  keys <orig-3@example.net>:InReplyTo
";
