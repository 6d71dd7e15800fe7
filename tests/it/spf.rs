//! SPF against real DNS on loopback: the openspf.org suite for RFC 7208, and what the suite lacks.
//!
//! The suite is read from `../shared/corpus/auth/spf`, or below `REPLYGUARD_CORPUS`; where it is
//! missing the test says SKIPPED.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use mail_auth::MessageAuthenticator;
use mail_auth::spf::verify::SpfParameters;
use replyguard::auth::dns::Dns;
use replyguard::auth::spf::{Breadth, Identity, SpfOutcome, check};
use replyguard::auth::{Authenticator, Settings};
use replyguard::judge::evidence::{AuthResult, SpfScope};
use replyguard::mail::address::{Address, ReversePath};
use saphyr::{LoadableYamlNode, Yaml};
use tokio::time::Instant;

use super::dns::{Fault, TestDns, Times};
use crate::skipped::{corpus, without_corpus};

/// One case of the suite.
pub struct Case {
    pub name: String,
    pub helo: String,
    pub client: IpAddr,
    pub mail_from: String,
    pub results: Vec<String>,
}

/// A scalar as text, an empty or absent one as "".
fn text(node: &Yaml<'_>) -> String {
    if let Some(text) = node.as_str() {
        return text.to_owned();
    }
    node.as_integer().map_or(String::new(), |number| number.to_string())
}

fn cases(scenario: &Yaml<'_>) -> Vec<Case> {
    let case = |(name, of): (&Yaml<'_>, &Yaml<'_>)| {
        let results = &of["result"];
        let results =
            results.as_vec().map_or(vec![text(results)], |all| all.iter().map(text).collect());
        Case {
            name: text(name),
            helo: text(&of["helo"]),
            client: text(&of["host"]).parse().unwrap(),
            mail_from: text(&of["mailfrom"]),
            results,
        }
    };
    scenario["tests"].as_mapping().unwrap().iter().map(case).collect()
}

/// `"v=spf1 …"` for a zone, each character one byte, those that are not plain as `\ddd`.
fn quoted(node: &Yaml<'_>) -> String {
    let strings = node.as_vec().map_or(vec![text(node)], |all| all.iter().map(text).collect());
    let mut quoted = String::new();
    for string in strings {
        quoted.push('"');
        for c in string.chars() {
            match u32::from(c) {
                code @ (0..32 | 34 | 92 | 127..) => write!(quoted, "\\{code:03}").unwrap(),
                _ => quoted.push(c),
            }
        }
        quoted.push_str("\" ");
    }
    quoted
}

/// The server for a scenario. Records of type SPF stand for TXT where a name has no TXT of its
/// own; `TIMEOUT` is silence for the types a name does not have.
fn server(scenario: &Yaml<'_>) -> TestDns {
    let mut zone = String::new();
    let mut silent: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, records) in scenario["zonedata"].as_mapping().unwrap() {
        let name = text(name);
        let mut found = Vec::new();
        let records = records.as_vec().unwrap();
        let is = |kind: &str| records.iter().any(|record| record.as_mapping_get(kind).is_some());
        for record in records {
            if record.as_str() == Some("TIMEOUT") {
                silent.insert(name.clone(), Vec::new());
                continue;
            }
            for (kind, value) in record.as_mapping().unwrap() {
                let kind = kind.as_str().unwrap();
                let (kind, value) = match kind {
                    "TXT" if value.as_str() == Some("NONE") => continue,
                    "SPF" if is("TXT") => continue,
                    "TXT" | "SPF" => ("TXT", quoted(value)),
                    "MX" => {
                        let host = text(&value[1]);
                        let host = if host.is_empty() { ".".to_owned() } else { host };
                        ("MX", format!("{} {host}", text(&value[0])))
                    }
                    kind => (kind, text(value)),
                };
                if !value.is_empty() {
                    let name = name.replace(' ', "\\032");
                    writeln!(zone, "{name} {kind} {value}").unwrap();
                    found.push(kind.to_owned());
                }
            }
        }
        if let Some(kinds) = silent.get_mut(&name) {
            let all = ["A", "AAAA", "MX", "PTR", "TXT"];
            kinds.extend(all.iter().filter(|kind| !found.iter().any(|found| found == *kind)));
        }
    }
    let server = TestDns::start(&zone);
    for (name, kinds) in silent {
        for kind in kinds {
            server.fault(&name, Some(kind), Fault::Silence, Times::Always);
        }
    }
    server
}

/// Asks about MAIL FROM, or about HELO when it is empty.
async fn evaluate(dns: &Dns, client: IpAddr, helo: &str, mail_from: &str) -> SpfOutcome {
    let (local, domain) = mail_from.rsplit_once('@').unwrap_or(("", helo));
    let identity = Identity { scope: SpfScope::MailFrom, local, domain };
    check(dns, client, helo, &identity, Instant::now() + Duration::from_secs(20)).await
}

/// Whether mail-auth's own evaluation is asked too.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    Alone,
    WithMailAuth,
}

/// What came of one case of the suite.
pub struct Outcome {
    pub scenario: String,
    pub name: String,
    pub wanted: Vec<String>,
    pub found: String,
    /// The term that matched, or the rule that ended the evaluation; empty where neither did.
    pub decided_by: String,
    /// What mail-auth alone says.
    pub alone: Option<String>,
}

impl Outcome {
    pub fn is_right(&self) -> bool {
        self.wanted.contains(&self.found)
    }
}

/// Each scenario of the suite: its name, its server, its cases; `None` where the suite is missing.
pub fn scenarios() -> Option<Vec<(String, TestDns, Vec<Case>)>> {
    let path = corpus("auth/spf/rfc7208-tests.yml");
    let Ok(suite) = fs::read_to_string(&path) else {
        without_corpus(&format!("no {}", path.display()));
        return None;
    };
    let suite = Yaml::load_from_str(&suite).unwrap();
    let tests = suite.iter().filter(|scenario| scenario.as_mapping_get("tests").is_some());
    let read =
        |scenario: &Yaml<'_>| (text(&scenario["description"]), server(scenario), cases(scenario));
    Some(tests.map(read).collect())
}

/// Asks all cases of the suite; `None` where it is missing.
pub async fn suite(compared: Compared) -> Option<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for (description, server, cases) in scenarios()? {
        let dns = Dns::new(&[server.address()], Duration::from_secs(1)).unwrap();
        let theirs = (compared == Compared::WithMailAuth).then(|| mail_auth(&server));
        for case in cases {
            let outcome = evaluate(&dns, case.client, &case.helo, &case.mail_from).await;
            let alone = match &theirs {
                Some(theirs) => Some(alone(theirs, &case).await),
                None => None,
            };
            outcomes.push(Outcome {
                scenario: description.clone(),
                name: case.name,
                wanted: case.results,
                found: outcome.result.to_string(),
                decided_by: outcome
                    .reason
                    .or(outcome.matched.map(|matched| matched.term))
                    .unwrap_or_default(),
                alone,
            });
        }
    }
    Some(outcomes)
}

/// mail-auth with the server. Patient, because what it answers on a busy machine is compared.
pub fn mail_auth(server: &TestDns) -> MessageAuthenticator {
    let mut connection = ConnectionConfig::udp();
    connection.port = server.address().port();
    let named = NameServerConfig::new(server.address().ip(), true, vec![connection]);
    let mut options = ResolverOpts::default();
    (options.timeout, options.attempts) = (Duration::from_secs(3), 0);
    MessageAuthenticator::new(ResolverConfig::from_name_servers(vec![named]), options).unwrap()
}

async fn alone(theirs: &MessageAuthenticator, case: &Case) -> String {
    let asked = match case.mail_from.is_empty() {
        true => SpfParameters::verify_ehlo(case.client, &case.helo, "receiver.example"),
        false => {
            let Case { client, helo, mail_from, .. } = case;
            SpfParameters::verify_mail_from(*client, helo, "receiver.example", mail_from)
        }
    };
    format!("{:?}", theirs.verify_spf(asked).await.result()).to_lowercase()
}

/// Goal: every result as the suite has it, and no pass where it has none.
#[tokio::test]
async fn the_suite_for_rfc_7208_passes() {
    let Some(outcomes) = suite(Compared::Alone).await else { return };
    let (mut wrong, mut false_passes, mut scenario) = (Vec::new(), Vec::new(), "");
    for outcome in &outcomes {
        if outcome.scenario != scenario {
            scenario = &outcome.scenario;
            println!("# {scenario}");
        }
        let line = format!(
            "{} {:30} {:9} of {:?} {}",
            if outcome.is_right() { "ok   " } else { "WRONG" },
            outcome.name,
            outcome.found,
            outcome.wanted,
            outcome.decided_by,
        );
        println!("{line}");
        match outcome.is_right() {
            true => {}
            false if outcome.found == "pass" => false_passes.push(line),
            false => wrong.push(line),
        }
    }
    let right = outcomes.len() - wrong.len() - false_passes.len();
    println!("{right} of {}", outcomes.len());
    assert_eq!(false_passes, Vec::<String>::new());
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(right, 203);
}

/// Goal: the record says who is in, and a record that lets everybody in is known as such.
#[tokio::test]
async fn the_term_that_matched_and_its_breadth_are_told() {
    let zone = "
        all.example TXT \"v=spf1 a mx +all\"
        halves.example TXT \"v=spf1 ip4:0.0.0.0/1 ip4:128.0.0.0/1 -all\"
        later.example TXT \"v=spf1 ip4:192.0.2.0/24 ip4:10.0.0.0/8 ip6:2001:db8::/32 -all\"
        narrow.example TXT \"v=spf1 ip4:192.0.2.0/24 -ip4:0.0.0.0/0\"
        a.example TXT \"v=spf1 a/7 -all\"
        a.example A 193.0.2.1
        mx.example TXT \"v=spf1 mx//48 -all\"
        mx.example MX 10 one.mx.example
        mx.example MX 20 two.mx.example
        one.mx.example A 192.0.2.7
        two.mx.example A 192.0.2.1
        two.mx.example AAAA 2001:db8::2
        exists.example TXT \"v=spf1 exists:%{i}.ok.exists.example -all\"
        192.0.2.1.ok.exists.example A 127.0.0.2
        ptr.example TXT \"v=spf1 ptr -all\"
        1.2.0.192.in-addr.arpa PTR client.ptr.example
        client.ptr.example A 192.0.2.1
        deep.example TXT \"v=spf1 ?include:halves.example include:later.example -all\"
        away.example TXT \"v=spf1 ip4:203.0.113.1 redirect=narrow.example\"
        wide6.example TXT \"v=spf1 ip6:2000::/3 -all\"
        fail.example TXT \"v=spf1 -ip4:192.0.2.0/24 +all\"
        missed.example TXT \"v=spf1 include:fail.example include:neutral.example a:one.mx.example/24\"
        neutral.example TXT \"v=spf1 ip4:203.0.113.1\"";
    let server = TestDns::start(zone);
    let dns = Dns::new(&[server.address()], Duration::from_secs(20)).unwrap();
    use Breadth::{Everybody, Network, Unbounded};
    for (domain, client, result, term, breadth, wide) in [
        ("all.example", "192.0.2.1", "pass", "+all", Everybody, true),
        // The first half is asked for, but the record lets in both.
        ("halves.example", "1.2.3.4", "pass", "ip4:0.0.0.0/1", Network(0), true),
        ("later.example", "192.0.2.1", "pass", "ip4:192.0.2.0/24", Network(7), true),
        ("later.example", "2001:db8::1", "pass", "ip6:2001:db8::/32", Network(32), false),
        ("narrow.example", "192.0.2.1", "pass", "ip4:192.0.2.0/24", Network(24), false),
        ("narrow.example", "::ffff:192.0.2.1", "pass", "ip4:192.0.2.0/24", Network(24), false),
        ("a.example", "192.0.2.1", "pass", "a/7", Network(7), true),
        ("mx.example", "192.0.2.1", "pass", "mx//48", Network(31), false),
        ("mx.example", "2001:db8::7:1", "pass", "mx//48", Network(48), false),
        ("exists.example", "192.0.2.1", "pass", "exists:%{i}.ok.exists.example", Unbounded, true),
        ("ptr.example", "192.0.2.1", "pass", "ptr", Unbounded, true),
        (
            "deep.example",
            "192.0.2.1",
            "neutral",
            "?include:halves.example ip4:128.0.0.0/1",
            Network(1),
            true,
        ),
        (
            "away.example",
            "192.0.2.1",
            "pass",
            "redirect=narrow.example ip4:192.0.2.0/24",
            Network(23),
            false,
        ),
        ("wide6.example", "2001:db8::1", "pass", "ip6:2000::/3", Network(3), true),
        ("fail.example", "192.0.2.1", "fail", "-ip4:192.0.2.0/24", Network(24), false),
        ("missed.example", "192.0.2.1", "pass", "a:one.mx.example/24", Network(24), false),
    ] {
        let client: IpAddr = client.parse().unwrap();
        let outcome = evaluate(&dns, client, "h.example", &format!("joe@{domain}")).await;
        assert_eq!(outcome.result.as_str(), result, "{domain}");
        assert_eq!(outcome.lets_everybody_in(client), wide, "{domain}");
        let matched = outcome.matched.unwrap();
        assert_eq!((matched.term.as_str(), matched.breadth), (term, breadth), "{domain}");
    }
    let outcome = evaluate(&dns, "192.0.2.1".parse().unwrap(), "h", "joe@neutral.example").await;
    assert_eq!((outcome.result, outcome.matched), (AuthResult::Neutral, None));
}

#[tokio::test]
async fn the_identity_is_mail_from_or_helo() {
    let server = TestDns::start(
        "mail.example TXT \"v=spf1 ip4:192.0.2.1 -all\"
        helo.example TXT \"v=spf1 exists:%{l}.%{o}.seen.example -all\"
        postmaster.helo.example.seen.example A 127.0.0.2",
    );
    let settings = Settings {
        servers: vec![server.address()],
        timeout: Duration::from_secs(20),
        best_guess: false,
    };
    let authenticator = Authenticator::new(&settings).unwrap();
    let client = "192.0.2.1".parse().unwrap();
    let address = |text| ReversePath::Address(Address::parse(text).unwrap());
    for (helo, mail_from, scope, domain, result) in [
        ("helo.example", address("joe@mail.example"), SpfScope::MailFrom, "mail.example", "pass"),
        ("helo.example", address("joe@none.example"), SpfScope::MailFrom, "none.example", "none"),
        ("helo.example", address("joe@[192.0.2.1]"), SpfScope::MailFrom, "", "none"),
        ("helo.example", ReversePath::Null, SpfScope::Helo, "helo.example", "pass"),
        ("[192.0.2.1]", ReversePath::Null, SpfScope::Helo, "[192.0.2.1]", "none"),
        ("localhost", ReversePath::Null, SpfScope::Helo, "localhost", "none"),
        ("", ReversePath::Null, SpfScope::Helo, "", "none"),
    ] {
        let outcome = authenticator.spf(client, helo, &mail_from).await;
        assert_eq!(outcome.result.as_str(), result, "{mail_from}");
        assert_eq!((outcome.scope, outcome.domain.as_str()), (scope, domain), "{mail_from}");
    }
}

/// Goal: what ends without a result says why, whose fault it is, and asks no more than it may.
#[tokio::test]
async fn trouble_has_a_reason_and_a_bound() {
    let mut zone = "
        two.example TXT \"v=spf1 +all\"
        two.example TXT \"v=spf1 -all\"
        odd.example TXT \"v=spf1 ipv4:192.0.2.1 +all\"
        void.example TXT \"v=spf1 a:a.void.example a:b.void.example a:c.void.example +all\"
        ok.example TXT \"v=spf1 a:a.void.example a:b.void.example +all\"
        self.example TXT \"v=spf1 include:self.example +all\"
        gone.example TXT \"v=spf1 include:gone.void.example +all\"
        dead.example TXT \"v=spf1 a:silent.example +all\"
        broken.example TXT \"v=spf1 mx +all\"
        broken.example MX 10 refused.example
        many.example TXT \"v=spf1 mx +all\"\n"
        .to_owned();
    for number in 0..11 {
        writeln!(zone, "many.example MX {number} mx{number}.many.example").unwrap();
    }
    let server = TestDns::start(&zone);
    server.fault("silent.example", None, Fault::Silence, Times::Always);
    server.fault("refused.example", None, Fault::Refused, Times::Always);
    let dns = Dns::new(&[server.address()], Duration::from_millis(500)).unwrap();
    let client = "192.0.2.1".parse().unwrap();
    for (domain, result, reason) in [
        ("two.example", "permerror", "two.example has two SPF records"),
        ("odd.example", "permerror", "odd.example: no such mechanism in \"ipv4:192.0.2.1\""),
        ("void.example", "permerror", "more than two lookups find nothing"),
        ("self.example", "permerror", "more than ten terms ask DNS"),
        ("gone.example", "permerror", "include of no record: gone.void.example"),
        ("many.example", "permerror", "many.example has more than ten mail servers"),
        ("dead.example", "temperror", "A silent.example: no answer in time"),
        ("broken.example", "temperror", "A refused.example: the server says REFUSED"),
    ] {
        let outcome = evaluate(&dns, client, "h.example", &format!("joe@{domain}")).await;
        assert_eq!(outcome.result.as_str(), result, "{domain}");
        assert_eq!(outcome.reason.as_deref(), Some(reason), "{domain}");
        assert!(!outcome.lets_everybody_in(client));
    }
    let outcome = evaluate(&dns, client, "h.example", "joe@ok.example").await;
    assert_eq!(outcome.result, AuthResult::Pass);
    assert_eq!(server.asked_times("TXT self.example"), 1);
    assert_eq!(server.asked().iter().filter(|asked| asked.contains("many.example")).count(), 2);
}
