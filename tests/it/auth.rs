//! Authentication against a real DNS server on loopback: what domains publish, and what becomes
//! of trouble.

use std::time::{Duration, Instant};

use super::dns::{Fault, TestDns, Times};
use replyguard::auth::{Authenticator, Settings};
use replyguard::judge::evidence::{Alignment, DmarcFacts, GapCause, Known, Receives};
use replyguard::mail::address::Domain;

/// Long enough that no answer of a loopback server on a busy machine comes too late.
const PATIENT: Duration = Duration::from_secs(20);

/// Short, for servers that never answer beside others that do.
const SHORT: Duration = Duration::from_secs(1);

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn authenticator(server: &TestDns, timeout: Duration) -> Authenticator {
    Authenticator::new(&Settings { servers: vec![server.address()], timeout, best_guess: false })
        .unwrap()
}

/// `org=example.com record=com quarantine r/s` or `gap: …`.
fn shown(facts: &Known<DmarcFacts>) -> String {
    let facts = match facts {
        Ok(facts) => facts,
        Err(gap) => return format!("gap: {}", gap.detail),
    };
    let mode = |alignment| if alignment == Alignment::Strict { "s" } else { "r" };
    let record = facts.record.as_ref().map_or("none".to_owned(), |record| {
        format!(
            "{} {:?} {}/{}",
            record.published_at,
            record.policy,
            mode(record.dkim_alignment),
            mode(record.spf_alignment)
        )
    });
    let above = facts.above.as_ref().map_or(String::new(), |gap| format!(" above: {}", gap.detail));
    format!("org={} record={record}{above}", facts.organizational)
}

async fn dmarc_of(zone: &str, name: &str) -> String {
    let server = TestDns::start(zone);
    shown(&authenticator(&server, PATIENT).facts(&domain(name)).await.dmarc)
}

/// Goal: the walk of RFC 9989 §4.10 to the letter. Method: its own examples (§4.10.2, §5.1.8,
/// §B.4), the reserved `.example` in the place of com.
#[tokio::test]
async fn the_tree_walk_finds_what_rfc_9989_says() {
    let a_mail = "
        a.mail.corp.example A 192.0.2.1
        _dmarc.mail.corp.example TXT \"v=DMARC1; p=reject\"
        _dmarc.corp.example TXT \"v=DMARC1; p=reject; sp=quarantine; adkim=s\"";
    let psd_n = "
        a.mail.corp.example A 192.0.2.1
        _dmarc.mail.corp.example TXT \"v=DMARC1; p=reject; psd=n; aspf=s\"
        _dmarc.corp.example TXT \"v=DMARC1; p=none\"";
    let psd_y = "
        a.mail.corp.example A 192.0.2.1
        _dmarc.example TXT \"v=DMARC1; p=reject; psd=y\"";
    let cut_too_deep = "
        mail.a.b.c.d.e.f.g.corp.example A 192.0.2.1
        _dmarc.b.c.d.e.f.g.corp.example TXT \"v=DMARC1; p=reject; psd=n\"
        _dmarc.corp.example TXT \"v=DMARC1; p=quarantine\"";
    let simple = "
        _dmarc.corp.example TXT \"v=DMARC1; p=reject\"
        _dmarc.signing.corp.example TXT \"v=DMARC1; p=none\"
        a.b.c.d.e.f.g.h.i.j.k.corp.example A 192.0.2.1";
    let bank = "
        _dmarc.bank.example TXT \"v=DMARC1; p=reject; psd=y; sp=quarantine; np=none\"
        _dmarc.giant.bank.example TXT \"v=DMARC1; p=quarantine\"
        mail.mega.bank.example A 192.0.2.1
        mail.giant.bank.example A 192.0.2.1";
    for (zone, name, expected) in [
        (a_mail, "a.mail.corp.example", "org=corp.example record=corp.example Quarantine s/r"),
        (a_mail, "mail.corp.example", "org=corp.example record=mail.corp.example Reject r/r"),
        (psd_n, "a.mail.corp.example", "org=mail.corp.example record=mail.corp.example Reject r/s"),
        (psd_y, "a.mail.corp.example", "org=corp.example record=example Reject r/r"),
        (psd_y, "example", "org=example record=example Reject r/r"),
        (
            cut_too_deep,
            "mail.a.b.c.d.e.f.g.corp.example",
            "org=corp.example record=corp.example Quarantine r/r",
        ),
        (simple, "corp.example", "org=corp.example record=corp.example Reject r/r"),
        (simple, "signing.corp.example", "org=corp.example record=signing.corp.example None r/r"),
        (
            simple,
            "a.b.c.d.e.f.g.h.i.j.k.corp.example",
            "org=corp.example record=corp.example Reject r/r",
        ),
        (
            bank,
            "giant.bank.example",
            "org=giant.bank.example record=giant.bank.example Quarantine r/r",
        ),
        (
            bank,
            "mail.giant.bank.example",
            "org=giant.bank.example record=giant.bank.example Quarantine r/r",
        ),
        (
            bank,
            "mail.mega.bank.example",
            "org=mega.bank.example record=bank.example Quarantine r/r",
        ),
        (bank, "gone.bank.example", "org=gone.bank.example record=bank.example None r/r"),
        ("other.example A 192.0.2.1", "corp.example", "org=corp.example record=none"),
    ] {
        assert_eq!(dmarc_of(zone, name).await, expected, "{name} in\n{zone}");
    }
}

#[tokio::test]
async fn a_long_name_costs_eight_questions() {
    let server = TestDns::start("mail.corp.example A 192.0.2.1");
    let name = domain("a.b.c.d.e.f.g.h.i.j.mail.corp.example");
    authenticator(&server, PATIENT).facts(&name).await;
    let mut asked = server.asked();
    asked.retain(|question| question.starts_with("TXT"));
    asked.sort_by_key(|question| std::cmp::Reverse(question.len()));
    let expected = [
        "TXT _dmarc.a.b.c.d.e.f.g.h.i.j.mail.corp.example",
        "TXT _dmarc.g.h.i.j.mail.corp.example",
        "TXT _dmarc.h.i.j.mail.corp.example",
        "TXT _dmarc.i.j.mail.corp.example",
        "TXT _dmarc.j.mail.corp.example",
        "TXT _dmarc.mail.corp.example",
        "TXT _dmarc.corp.example",
        "TXT _dmarc.example",
    ];
    assert_eq!(asked, expected);
}

/// Goal: RFC 9989 §4.7, §4.8 and §4.10.1 on records right and wrong. Method: one record each, for
/// the domain itself, for a subdomain that exists and one that does not.
#[tokio::test]
async fn a_record_is_read_as_rfc_9989_says() {
    for (record, own, existing, missing) in [
        ("v=DMARC1; p=reject", "Reject", "Reject", "Reject"),
        ("v=DMARC1;p=none;sp=reject", "None", "Reject", "Reject"),
        ("v=DMARC1; p=none; sp=quarantine; np=reject", "None", "Quarantine", "Reject"),
        ("v=DMARC1; p=reject; np=none", "Reject", "Reject", "None"),
        ("v = DMARC1 ; P = ReJeCt ;;", "Reject", "Reject", "Reject"),
        ("v=DMARC1; p=reject; t=y; sp=quarantine", "Quarantine", "None", "None"),
        ("v=DMARC1; p=reject; pct=0; foo=bar; adkim=x; =;", "Reject", "Reject", "Reject"),
        ("v=DMARC1; rua=mailto:d@corp.example", "None", "None", "None"),
        ("v=DMARC1; p=rejct; rua=x, mailto:d@corp.example!10m", "None", "None", "None"),
        ("v=DMARC1; p=reject; sp=oops; rua=mailto:d@corp.example", "None", "None", "None"),
        ("v=DMARC1; p=rejct; rua=mailto:nobody", "-", "-", "-"),
        ("v=DMARC1; p=rejct", "-", "-", "-"),
        ("v=DMARC1; p=reject; np=", "-", "-", "-"),
        ("v=DMARC1", "-", "-", "-"),
        ("v=DMARC2; p=reject", "-", "-", "-"),
        ("v=dmarc1; p=reject", "-", "-", "-"),
        ("v=DMARC10; p=reject", "-", "-", "-"),
        ("p=reject; v=DMARC1", "-", "-", "-"),
        (" v=DMARC1; p=reject", "-", "-", "-"),
        ("v=spf1 -all", "-", "-", "-"),
        ("", "-", "-", "-"),
    ] {
        let zone = format!("sub.corp.example A 192.0.2.1\n_dmarc.corp.example TXT \"{record}\"");
        let server = TestDns::start(&zone);
        let authenticator = authenticator(&server, PATIENT);
        for (name, expected) in
            [("corp.example", own), ("sub.corp.example", existing), ("gone.corp.example", missing)]
        {
            let facts = authenticator.facts(&domain(name)).await.dmarc.unwrap();
            let policy = facts.record.map(|record| format!("{:?}", record.policy));
            assert_eq!(policy.as_deref().unwrap_or("-"), expected, "{name}: {record:?}");
        }
    }
}

#[tokio::test]
async fn two_records_are_none_and_two_strings_are_one_record() {
    let two = "
        _dmarc.corp.example TXT \"v=DMARC1; p=reject\"
        _dmarc.corp.example TXT \"v=DMARC1; p=none\"
        _dmarc.corp.example TXT \"unrelated\"";
    assert_eq!(dmarc_of(two, "corp.example").await, "org=corp.example record=none");
    let strings = "
        _dmarc.corp.example TXT \"v=DMA\" \"RC1; p=quaran\" \"tine\"
        _dmarc.corp.example TXT \"unrelated\"";
    assert_eq!(
        dmarc_of(strings, "corp.example").await,
        "org=corp.example record=corp.example Quarantine r/r"
    );
}

#[tokio::test]
async fn a_record_behind_an_alias_and_one_too_long_for_udp_are_found() {
    let long = "x".repeat(3000);
    let zone = format!(
        "_dmarc.corp.example CNAME records.host.example
        records.host.example TXT \"v=DMARC1; p=reject; x={long}\"
        _dmarc.dead.example CNAME nowhere.host.example"
    );
    let server = TestDns::start(&zone);
    let authenticator = authenticator(&server, PATIENT);
    let facts = authenticator.facts(&domain("corp.example")).await;
    assert_eq!(shown(&facts.dmarc), "org=corp.example record=corp.example Reject r/r");
    let facts = authenticator.facts(&domain("dead.example")).await;
    assert_eq!(shown(&facts.dmarc), "org=dead.example record=none");
}

/// Goal: a resolver that does not speak of the top-level domain makes no domain unknown, and it
/// is told; trouble where a record could stand is a gap that names the place.
#[tokio::test]
async fn trouble_above_the_organization_is_told_and_trouble_within_is_a_gap() {
    let zone = "
        corp.example MX 10 mx.corp.example
        a.corp.example MX 10 mx.corp.example
        _dmarc.corp.example TXT \"v=DMARC1; p=reject\"
        bare.example MX 10 mx.corp.example
        _dmarc.cut.corp.example TXT \"v=DMARC1; p=quarantine; psd=n\"";
    let refused = |name| format!("TXT {name}: the server says REFUSED");
    for (fault, name, expected) in [
        (
            "_dmarc.example",
            "corp.example",
            format!(
                "org=corp.example record=corp.example Reject r/r above: {}",
                refused("_dmarc.example")
            ),
        ),
        (
            "_dmarc.example",
            "bare.example",
            format!("org=bare.example record=none above: {}", refused("_dmarc.example")),
        ),
        ("_dmarc.example", "example", format!("gap: {}", refused("_dmarc.example"))),
        (
            "_dmarc.corp.example",
            "a.corp.example",
            format!("gap: {}", refused("_dmarc.corp.example")),
        ),
        (
            "_dmarc.a.corp.example",
            "a.corp.example",
            format!("gap: {}", refused("_dmarc.a.corp.example")),
        ),
        (
            "_dmarc.corp.example",
            "cut.corp.example",
            "org=cut.corp.example record=cut.corp.example Quarantine r/r".to_owned(),
        ),
    ] {
        let server = TestDns::start(zone);
        server.fault(fault, None, Fault::Refused, Times::Always);
        let facts = authenticator(&server, PATIENT).facts(&domain(name)).await;
        assert_eq!(shown(&facts.dmarc), expected, "{fault} refused");
    }
}

#[tokio::test]
async fn whether_a_subdomain_exists_matters_only_where_the_record_asks() {
    for (record, expected) in [
        ("p=reject", "org=corp.example record=corp.example Reject r/r"),
        ("p=reject; np=none", "gap: MX a.corp.example: the server says SERVFAIL"),
    ] {
        let server = TestDns::start(&format!("_dmarc.corp.example TXT \"v=DMARC1; {record}\""));
        server.fault("a.corp.example", None, Fault::ServFail, Times::Always);
        let facts = authenticator(&server, PATIENT).facts(&domain("a.corp.example")).await;
        assert_eq!(shown(&facts.dmarc), expected);
        assert_eq!(facts.receives.unwrap_err().cause, GapCause::Dns);
    }
}

#[tokio::test]
async fn who_cannot_receive_is_known() {
    let zone = "
        null.example MX 0 .
        odd.example MX 0 .
        odd.example MX 10 mx.odd.example
        mx.example MX 10 mx.mx.example
        a.example A 192.0.2.1
        txt.example TXT \"no mail server at all\"
        below.branch.example A 192.0.2.1
        lost.example CNAME gone.example
        alias.example CNAME null.example";
    let server = TestDns::start(zone);
    let authenticator = authenticator(&server, PATIENT);
    for (name, expected) in [
        ("null.example", Receives::NullMx),
        ("alias.example", Receives::NullMx),
        ("odd.example", Receives::Yes),
        ("mx.example", Receives::Yes),
        ("a.example", Receives::Yes),
        ("txt.example", Receives::Yes),
        ("branch.example", Receives::Yes),
        ("gone.example", Receives::NoSuchDomain),
        ("lost.example", Receives::NoSuchDomain),
    ] {
        assert_eq!(authenticator.facts(&domain(name)).await.receives, Ok(expected), "{name}");
    }
}

/// Goal: a name denied once and then found counts as existing, and the second answer is asked
/// anew even when the first stands in the memory.
#[tokio::test]
async fn a_name_is_gone_only_when_two_answers_say_so() {
    let server = TestDns::start("flap.example A 192.0.2.1");
    server.fault("flap.example", None, Fault::NoSuchName, Times::First(1));
    let authenticator = authenticator(&server, PATIENT);
    assert_eq!(authenticator.facts(&domain("flap.example")).await.receives, Ok(Receives::Yes));
    assert_eq!(server.asked_times("MX flap.example"), 1);
    assert_eq!(server.asked_times("A flap.example"), 1);

    let server = TestDns::start("flap.example A 192.0.2.1");
    server.fault("flap.example", Some("MX"), Fault::NoSuchName, Times::Always);
    server.fault("flap.example", Some("A"), Fault::ServFail, Times::Always);
    let authenticator = self::authenticator(&server, PATIENT);
    let gap = authenticator.facts(&domain("flap.example")).await.receives.unwrap_err();
    assert_eq!(gap.detail, "A flap.example: the server says SERVFAIL");
}

#[tokio::test]
async fn a_silent_server_costs_the_deadline_and_no_more() {
    let server = TestDns::start("");
    for name in ["dead.example", "_dmarc.dead.example", "_dmarc.example"] {
        server.fault(name, None, Fault::Silence, Times::Always);
    }
    let authenticator = authenticator(&server, SHORT);
    let start = Instant::now();
    let facts = authenticator.facts(&domain("dead.example")).await;
    let took = start.elapsed();
    assert!(took >= SHORT - Duration::from_millis(1), "{took:?}");
    assert!(took < SHORT + Duration::from_secs(5), "{took:?}");
    assert_eq!(shown(&facts.dmarc), "gap: TXT _dmarc.dead.example: no answer in time");
    assert_eq!(facts.receives.unwrap_err().detail, "MX dead.example: no answer in time");
}

#[tokio::test]
async fn a_slow_zone_above_does_not_use_up_the_time_of_the_one_that_counts() {
    let server = TestDns::start(
        "corp.example MX 10 mx.corp.example\n_dmarc.corp.example TXT \"v=DMARC1; p=reject\"",
    );
    server.fault("_dmarc.example", None, Fault::Silence, Times::Always);
    let facts = authenticator(&server, SHORT).facts(&domain("corp.example")).await;
    assert_eq!(
        shown(&facts.dmarc),
        "org=corp.example record=corp.example Reject r/r above: TXT _dmarc.example: no answer in \
         time"
    );
    assert_eq!(facts.receives, Ok(Receives::Yes));
}

#[tokio::test]
async fn a_failure_is_remembered_for_a_while_and_tried_twice_before() {
    let server = TestDns::start("corp.example MX 10 mx.corp.example");
    server.fault("corp.example", None, Fault::ServFail, Times::Always);
    let authenticator = authenticator(&server, PATIENT);
    for _ in 0..3 {
        let facts = authenticator.facts(&domain("corp.example")).await;
        assert_eq!(facts.receives.unwrap_err().cause, GapCause::Dns);
    }
    assert_eq!(server.asked_times("MX corp.example"), 2);

    let server = TestDns::start("corp.example MX 10 mx.corp.example");
    server.fault("corp.example", None, Fault::ServFail, Times::First(1));
    let authenticator = self::authenticator(&server, PATIENT);
    assert_eq!(authenticator.facts(&domain("corp.example")).await.receives, Ok(Receives::Yes));
}

/// Goal: a thousand bounces to one domain ask once, before and after the answer came.
#[tokio::test]
async fn what_many_ask_at_once_is_asked_once() {
    let server = TestDns::start(
        "corp.example MX 10 mx.corp.example\n_dmarc.corp.example TXT \"v=DMARC1; p=reject\"",
    );
    for name in ["corp.example", "_dmarc.corp.example", "_dmarc.example"] {
        server.fault(name, None, Fault::Delay(Duration::from_millis(50)), Times::Always);
    }
    let authenticator = authenticator(&server, PATIENT);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let authenticator = authenticator.clone();
        tasks.spawn(async move { authenticator.facts(&domain("corp.example")).await });
    }
    let all = tasks.join_all().await;
    assert!(all.iter().all(|facts| facts.receives == Ok(Receives::Yes)));
    assert!(all.iter().all(|facts| facts.dmarc.as_ref().unwrap().record.is_some()));
    authenticator.facts(&domain("CORP.example")).await;
    let mut asked = server.asked();
    asked.sort();
    assert_eq!(asked, ["MX corp.example", "TXT _dmarc.corp.example", "TXT _dmarc.example"]);
}

#[tokio::test]
async fn an_answer_nobody_waited_for_is_remembered() {
    let server = TestDns::start("slow.example MX 10 mx.slow.example");
    let authenticator = authenticator(&server, PATIENT);
    server.fault("slow.example", None, Fault::Delay(Duration::from_millis(100)), Times::Always);
    let name = domain("slow.example");
    let given_up = tokio::time::timeout(Duration::from_millis(20), authenticator.facts(&name));
    assert!(given_up.await.is_err());
    assert_eq!(authenticator.facts(&name).await.receives, Ok(Receives::Yes));
    assert_eq!(server.asked_times("MX slow.example"), 1);
}

#[tokio::test]
async fn another_server_answers_when_one_does_not() {
    let silent = TestDns::start("");
    silent.fault("corp.example", None, Fault::Silence, Times::Always);
    let server = TestDns::start("corp.example MX 0 .");
    let servers = vec![silent.address(), server.address()];
    let authenticator =
        Authenticator::new(&Settings { servers, timeout: PATIENT, best_guess: false }).unwrap();
    let facts = authenticator.facts(&domain("corp.example")).await;
    assert_eq!(facts.receives, Ok(Receives::NullMx));
}

#[tokio::test]
async fn names_that_cannot_be_asked_do_not_exist() {
    let server = TestDns::start("");
    let label = "x".repeat(60);
    let long = [label.as_str(); 4].join(".");
    let facts = authenticator(&server, PATIENT).facts(&domain(&long)).await;
    assert_eq!(facts.receives, Ok(Receives::NoSuchDomain));
    assert!(facts.dmarc.unwrap().record.is_none());
}
