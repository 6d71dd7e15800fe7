//! Station 3: what the embedded header of the subject message proves about it; and what results
//! that a host on the way sealed prove.
//!
//! Takes: the embedded header, its `Border`, `Site`. Gives: `Findings`, or the `Gap`s that say why
//! there are none.
//! Standards: RFC 8601 §2.7 and §5, RFC 8617 §4.1.1, RFC 7208 §2.3 and §2.4, RFC 6376 §5.4.
//!
//! A line counts when it has one of our authserv-ids, stands above the border line, and our border
//! is declared to remove foreign lines of that id. All three, because each fails alone: a peer can
//! write any id, can write it on top of its own part, and an administrator can be mistaken.
//!
//! Of several lines of ours the lowest ones count, method by method: they were written where the
//! message came in. A line further up was written behind an inside hop, whose client is our own.

use crate::judge::border::{Border, End, Inside, Trace};
use crate::judge::evidence::{
    AuthResult, DkimFinding, DmarcFinding, Evaluated, Findings, Gap, GapCause, Source, SpfFinding,
    SpfScope,
};
use crate::judge::site::Site;
use crate::mail::address::{Address, Domain, ReversePath};
use crate::mail::author::AuthorSign;
use crate::mail::authres::{AuthResults, MethodResult};
use crate::mail::header::{Field, Fields};

/// Who the subject message says it is from.
#[derive(Clone, Debug, Default)]
pub struct Identities {
    /// Its reverse-path, where the reporting system wrote it.
    pub mail_from: Option<ReversePath>,
    /// Mailboxes of its From field.
    pub from: Vec<Address>,
    /// The mailbox of its Sender field.
    pub sender: Option<Address>,
    /// What is odd about its From field.
    pub author_sign: Option<AuthorSign>,
}

/// What an Authentication-Results line may speak of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Everything.
    All,
    /// Only what does not depend on the client's address: its writer saw a gateway's.
    Signatures,
}

/// What the embedded header proves; with the gaps that stay.
pub fn findings(
    header: &Fields<'_>,
    trace: &Trace,
    border: &Border,
    site: &Site,
    identities: Identities,
) -> (Option<Findings>, Vec<Gap>) {
    match &border.end {
        End::Inside(Inside::Made) => (own(identities, "all its Received lines are ours"), vec![]),
        End::Inside(Inside::Authenticated) => (own(identities, "its client authenticated"), vec![]),
        End::Inside(Inside::Reinjected) => {
            let detail = "an inside host gave it back, and what stands below is not ours";
            (None, vec![Gap::new(GapCause::NoAuthResults, detail)])
        }
        End::NoLine | End::Foreign => {
            let detail = "its topmost Received line is not ours";
            (None, vec![Gap::new(GapCause::NoAuthResults, detail)])
        }
        End::Outside(_) | End::Unsaid | End::BehindRelay { .. } | End::MadeByRelay { .. } => {
            from_lines(header, trace, border, site, identities)
        }
    }
}

/// What the sealed results of a host that is believed prove (RFC 8617 §4.1.1). Only passes: what it
/// did not find out, somebody else may have.
pub fn sealed(results: &AuthResults, sealer: &Domain, identities: Identities) -> Findings {
    let mut findings = empty(Source::Arc { sealer: sealer.to_string() }, identities);
    for method in ["dkim", "spf", "dmarc"] {
        results.of(method).for_each(|result| add(&mut findings, method, result));
    }
    findings.spf.retain(|spf| spf.result == AuthResult::Pass);
    findings.dkim.retain(|dkim| dkim.result == AuthResult::Pass);
    findings.dmarc.retain(|dmarc| dmarc.result == AuthResult::Pass);
    findings.evaluated = Evaluated::default();
    findings
}

fn own(identities: Identities, sign: &str) -> Option<Findings> {
    let mut findings = empty(Source::OwnReceived, identities);
    findings.own_submission = Some(sign.to_owned());
    Some(findings)
}

fn from_lines(
    header: &Fields<'_>,
    trace: &Trace,
    border: &Border,
    site: &Site,
    identities: Identities,
) -> (Option<Findings>, Vec<Gap>) {
    let mut gaps = Vec::new();
    let hidden = hidden_client(border);
    gaps.extend(hidden.as_deref().map(|detail| Gap::new(GapCause::BehindRelay, detail)));
    let field_of = |line: usize| trace.at.get(line).copied();
    let end = border.believed.checked_sub(1).and_then(field_of).unwrap_or(0);
    let relay = border.relay.and_then(field_of);
    let mut lines = Vec::new();
    let mut below = false;
    for (index, field) in header.iter().enumerate().filter(|(_, f)| f.is("authentication-results"))
    {
        let Ok(results) = AuthResults::parse(field.raw()) else { continue };
        if !site.authserv_ids.contains(&results.authserv_id) {
            continue;
        }
        if index > end && !(is_directly_below(header, end, index, site) && is_literal(field, site))
        {
            below = true;
            continue;
        }
        let is_gateways = hidden.is_some() || relay.is_some_and(|relay| index < relay);
        let reach = if is_gateways { Reach::Signatures } else { Reach::All };
        let section = trace.at.iter().filter(|line| **line < index).count();
        lines.push(Line { results, reach, section, is_below: index > end });
    }
    if lines.is_empty() {
        let detail = match below {
            true => "a line of ours stands only below the border line",
            false => "no line of ours above the border line",
        };
        gaps.push(Gap::new(GapCause::NoAuthResults, detail));
        return (None, gaps);
    }
    if !site.authserv_stripped {
        let detail = "our border is not declared to remove foreign lines of our authserv-id";
        gaps.push(Gap::new(GapCause::NotStripped, detail));
        return (None, gaps);
    }
    (Some(merged(&lines, identities)), gaps)
}

/// Whether nothing but fields that filters write stands between the border line and this field.
///
/// Why this much and no more: a milter that inserts at place 1 puts its field directly below the
/// line that Postfix has just written, and the next one directly below that again. The peer's own
/// header begins with the first field that is none of these.
fn is_directly_below(header: &Fields<'_>, end: usize, index: usize, site: &Site) -> bool {
    let between = header.iter().take(index).skip(end + 1);
    site.authserv_below && between.into_iter().all(|field| is_filters(field))
}

/// Whether the field is written as our own filter writes it: the name as RFC 8601 §2.2 has it, and
/// the id byte for byte.
///
/// Why: below the border line only our border's stripping keeps the peer's lines away, and what
/// strips may know an id in quotes, behind a comment or in capitals not for its own.
fn is_literal(field: &Field<'_>, site: &Site) -> bool {
    let value = field.raw().trim_ascii_start();
    let begins =
        |id: &String| value.strip_prefix(id.as_bytes()).is_some_and(|rest| rest.starts_with(b";"));
    field.name() == "Authentication-Results" && site.authserv_ids.iter().any(begins)
}

/// Fields that filters put beside their Authentication-Results.
fn is_filters(field: &Field<'_>) -> bool {
    const NAMES: &[&str] =
        &["authentication-results", "received-spf", "dkim-filter", "dmarc-filter", "arc-filter"];
    NAMES.iter().any(|name| field.is(name))
}

/// A line of ours above the border line.
struct Line {
    results: AuthResults,
    reach: Reach,
    /// How many Received lines stand above it.
    section: usize,
    /// Whether it stands below the border line, where the peer's own header follows.
    is_below: bool,
}

/// What the lines say together: for each method, the lowest section that evaluated it.
fn merged(lines: &[Line], identities: Identities) -> Findings {
    let lowest = lines.iter().max_by_key(|line| line.section);
    let authserv_id = lowest.map(|line| line.results.authserv_id.clone()).unwrap_or_default();
    let mut findings = empty(Source::AuthResults { authserv_id }, identities);
    for method in ["dkim", "spf", "dmarc"] {
        let evaluated = || {
            let reached = |line: &&Line| method == "dkim" || line.reach == Reach::All;
            lines.iter().filter(reached).filter(|line| line.results.of(method).next().is_some())
        };
        let section = evaluated().map(|line| line.section).max();
        for line in evaluated().filter(|line| Some(line.section) == section) {
            line.results.of(method).for_each(|result| add(&mut findings, method, result));
            // Why: of lines below the border the topmost is the filter's; one further down that
            // speaks of the same method may be the peer's.
            if line.is_below {
                break;
            }
        }
    }
    findings
}

fn add(findings: &mut Findings, method: &str, result: &MethodResult) {
    match method {
        "dkim" => {
            findings.evaluated.dkim = true;
            findings.dkim.extend(dkim(result));
        }
        "spf" => {
            let Some(finding) = spf(result) else { return };
            findings.evaluated.spf |= finding.scope != SpfScope::Helo;
            if findings.mail_from.is_none() && finding.scope == SpfScope::MailFrom {
                findings.mail_from = finding.address.clone().map(ReversePath::Address);
            }
            findings.spf.push(finding);
        }
        _ => {
            findings.evaluated.dmarc = true;
            findings.dmarc.extend(AuthResult::parse(&result.result).map(|parsed| DmarcFinding {
                result: parsed,
                from_domain: result.property("header", "from").and_then(domain_of),
            }));
        }
    }
}

/// Why SPF and DMARC results of our lines are about a gateway and not about the peer, if so.
///
/// Why: SPF of a gateway's address proves nothing and refutes nothing. A gateway shared with half
/// the world even *passes* for every domain that sends through its operator.
fn hidden_client(border: &Border) -> Option<String> {
    match &border.end {
        // Why both: a gateway that adds no line of its own looks as if it had made all its mail.
        End::BehindRelay { relay } | End::MadeByRelay { relay } => {
            Some(format!("{relay} does not say who its client was"))
        }
        End::Outside(line) if line.is_private() => {
            Some(format!("{} at the border is a private address", line.ip))
        }
        _ => None,
    }
}

fn empty(source: Source, identities: Identities) -> Findings {
    let Identities { mail_from, from, sender, author_sign } = identities;
    Findings { mail_from, from, sender, author_sign, ..Findings::of(source) }
}

/// RFC 8601 §2.7.2: `smtp.mailfrom` is the MAIL FROM identity, `smtp.helo` the HELO one. With an
/// empty reverse-path the HELO identity was checked (RFC 7208 §2.4), whatever the property says.
fn spf(result: &MethodResult) -> Option<SpfFinding> {
    let mail_from = ["mailfrom", "mail"].iter().find_map(|name| result.property("smtp", name));
    let mail_from = mail_from.map(|value| value.trim_matches(|c| matches!(c, '<' | '>')));
    let helo = result.property("smtp", "helo");
    let (scope, identity) = match (mail_from, helo) {
        (Some(""), _) => (SpfScope::Helo, helo.unwrap_or_default()),
        (Some(identity), _) => (SpfScope::MailFrom, identity),
        (None, Some(identity)) => (SpfScope::Helo, identity),
        (None, None) => (SpfScope::Unnamed, ""),
    };
    Some(SpfFinding {
        scope,
        address: Address::parse(identity),
        ..SpfFinding::of(AuthResult::parse(&result.result)?, domain_of(identity))
    })
}

/// RFC 8601 §2.7.1: `header.d`; older verifiers name only `header.i`, whose domain is d= or below.
fn dkim(result: &MethodResult) -> Option<DkimFinding> {
    let parsed = AuthResult::parse(&result.result)?;
    let domain = [("header", "d"), ("", "d"), ("header", "i")];
    let domain = domain.iter().find_map(|(ptype, name)| result.property(ptype, name));
    Some(DkimFinding {
        reason: result.reason.clone(),
        ..DkimFinding::of(parsed, domain.and_then(domain_of))
    })
}

/// The domain of `joe@a.example`, `@a.example` or `a.example`.
fn domain_of(value: &str) -> Option<Domain> {
    Domain::parse(value.rsplit_once('@').map_or(value, |(_, domain)| domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> Site {
        Site {
            networks: vec!["127.0.0.0/8".parse().unwrap()],
            trusted_relays: vec!["203.0.113.0/24".parse().unwrap()],
            hosts: ["mx.ours.test".into()].into(),
            authserv_ids: ["mx.ours.test".into(), "gw.filter.test".into()].into(),
            authserv_stripped: true,
            ..Site::default()
        }
    }

    fn found(header: &str, site: &Site) -> (Option<Findings>, Vec<GapCause>) {
        let fields = Fields::read(header.as_bytes());
        let trace = Trace::of(&fields);
        let border = trace.border(site);
        let (findings, gaps) = findings(&fields, &trace, &border, site, Identities::default());
        (findings, gaps.into_iter().map(|gap| gap.cause).collect())
    }

    fn domains(findings: &Findings) -> Vec<(&'static str, &'static str, String)> {
        let name =
            |domain: &Option<Domain>| domain.as_ref().map(Domain::to_string).unwrap_or_default();
        let spf = findings.spf.iter().map(|f| ("spf", f.result.as_str(), name(&f.domain)));
        let dkim = findings.dkim.iter().map(|f| ("dkim", f.result.as_str(), name(&f.domain)));
        let dmarc =
            findings.dmarc.iter().map(|f| ("dmarc", f.result.as_str(), name(&f.from_domain)));
        spf.chain(dkim).chain(dmarc).collect()
    }

    const AR: &str = "Authentication-Results: mx.ours.test;\n spf=fail smtp.mailfrom=v@bank.test;\n\
        \tdkim=pass header.d=example.net; dkim=fail header.i=@bank.test;\n dmarc=fail header.from=bank.test\n";
    const OUTSIDE: &str =
        "Received: from x (unknown [192.0.2.55])\n by mx.ours.test (Postfix) id A\n";
    const RELAY: &str =
        "Received: from gw.filter.test (gw.filter.test [203.0.113.5]) by mx.ours.test id D\n";
    const RELAYS: &str = "Received: from x (unknown [192.0.2.7]) by gw.filter.test id G\n";
    const FORGED_AR: &str =
        "Authentication-Results: mx.ours.test; spf=pass smtp.mailfrom=v@bank.test\n";
    const FORGED: &str = "Received: from b (b [127.0.0.1]) by mx.ours.test (Postfix) id F\n";

    #[test]
    fn our_line_above_the_border_line_is_believed() {
        let (findings, gaps) = found(&[AR, OUTSIDE].concat(), &site());
        let findings = findings.unwrap();
        assert_eq!(
            domains(&findings),
            [
                ("spf", "fail", "bank.test".to_owned()),
                ("dkim", "pass", "example.net".to_owned()),
                ("dkim", "fail", "bank.test".to_owned()),
                ("dmarc", "fail", "bank.test".to_owned()),
            ]
        );
        assert_eq!(findings.mail_from.unwrap().to_string(), "v@bank.test");
        assert_eq!(findings.evaluated, Evaluated::ALL);
        assert_eq!(gaps, []);
    }

    #[test]
    fn a_forged_pair_in_the_peers_part_proves_nothing() {
        for peers in [
            FORGED_AR.to_owned(),
            [FORGED_AR, FORGED].concat(),
            [FORGED, FORGED_AR, FORGED].concat(),
        ] {
            let (findings, gaps) = found(&[OUTSIDE, &peers].concat(), &site());
            assert_eq!((findings, gaps), (None, vec![GapCause::NoAuthResults]), "{peers}");
            let (findings, _) = found(&[AR, OUTSIDE, &peers].concat(), &site());
            assert_eq!(findings.unwrap().spf.len(), 1, "{peers}");
        }
    }

    #[test]
    fn without_stripping_nothing_is_believed() {
        let site = Site { authserv_stripped: false, ..site() };
        assert_eq!(found(&[AR, OUTSIDE].concat(), &site), (None, vec![GapCause::NotStripped]));
    }

    #[test]
    fn another_authserv_id_is_not_ours() {
        let theirs = AR.replace("mx.ours.test", "mx.theirs.test");
        assert_eq!(
            found(&[&theirs, OUTSIDE].concat(), &site()),
            (None, vec![GapCause::NoAuthResults])
        );
        let line = "Received: from x (unknown [192.0.2.55]) by mx.theirs.test (Postfix) id A\n";
        assert_eq!(found(&[AR, line].concat(), &site()), (None, vec![GapCause::NoAuthResults]));
    }

    #[test]
    fn behind_a_relay_only_signatures_count_and_the_relays_own_line() {
        let (findings, gaps) = found(&[AR, RELAY, RELAYS].concat(), &site());
        let findings = findings.unwrap();
        assert!(findings.spf.is_empty() && findings.dmarc.is_empty() && !findings.evaluated.spf);
        assert_eq!((findings.dkim.len(), gaps), (2, vec![]));
        let relays =
            "Authentication-Results: gw.filter.test; spf=softfail smtp.mailfrom=bank.test\n";
        let (findings, gaps) = found(&[AR, RELAY, relays, RELAYS, FORGED_AR].concat(), &site());
        assert_eq!(domains(&findings.unwrap())[0], ("spf", "softfail", "bank.test".to_owned()));
        assert_eq!(gaps, []);
        let (findings, gaps) = found(&[AR, RELAY].concat(), &site());
        assert!(findings.unwrap().spf.is_empty());
        assert_eq!(gaps, [GapCause::BehindRelay]);
    }

    #[test]
    fn a_private_client_at_the_border_hides_the_peer() {
        let line = "Received: from gw (gw [10.0.0.9]) by mx.ours.test (Postfix) id A\n";
        let (findings, gaps) = found(&[AR, line].concat(), &site());
        assert!(findings.unwrap().spf.is_empty());
        assert_eq!(gaps, [GapCause::BehindRelay]);
    }

    #[test]
    fn of_several_lines_the_lowest_that_evaluated_a_method_counts() {
        let inner = "Received: from f (f [127.0.0.1]) by mx.ours.test id C\n";
        let above = "Authentication-Results: mx.ours.test; spf=pass smtp.mailfrom=inside.test\n";
        let signed = "Authentication-Results: mx.ours.test; dkim=pass header.d=a.test\n";
        let spf = "Authentication-Results: mx.ours.test; spf=fail smtp.mailfrom=bank.test\n";
        let header = [above, signed, inner, spf, OUTSIDE].concat();
        let (findings, _) = found(&header, &site());
        assert_eq!(
            domains(&findings.unwrap()),
            [("spf", "fail", "bank.test".to_owned()), ("dkim", "pass", "a.test".to_owned())]
        );
    }

    #[test]
    fn what_was_submitted_inside_is_our_own() {
        for line in [
            "Received: by mx.ours.test (Postfix, from userid 1000) id C\n",
            "Received: from pc (x [192.0.2.9]) by mx.ours.test (Postfix) with ESMTPSA id E\n",
        ] {
            let (findings, gaps) = found(&[AR, line].concat(), &site());
            let findings = findings.unwrap();
            assert!(findings.own_submission.is_some() && findings.spf.is_empty(), "{line}");
            assert_eq!((findings.source, gaps), (Source::OwnReceived, vec![]));
        }
        let again = "Received: from f (f [127.0.0.1]) by mx.ours.test id C\nReceived: from a by b.test id D\n";
        assert_eq!(found(again, &site()), (None, vec![GapCause::NoAuthResults]));
        assert_eq!(found("Subject: x\n", &site()), (None, vec![GapCause::NoAuthResults]));
    }

    /// Goal: below the border line no other spelling of our id counts; above it, ours may.
    #[test]
    fn below_the_border_only_the_literal_id_counts() {
        let site = Site { authserv_below: true, ..site() };
        let rest = "dkim=pass header.d=bank.test\n";
        let literal = format!("Authentication-Results: mx.ours.test; {rest}");
        for line in [
            format!("Authentication-Results: \"mx.ours.test\"; {rest}"),
            format!("Authentication-Results: (x) mx.ours.test; {rest}"),
            format!("Authentication-Results: mx.ours.test (x); {rest}"),
            format!("Authentication-Results: mx.ours.test.; {rest}"),
            format!("Authentication-Results: MX.ours.test; {rest}"),
            format!("Authentication-Results: mx.ours.test 1; {rest}"),
            format!("authentication-results: mx.ours.test; {rest}"),
        ] {
            let (below, gaps) = found(&[OUTSIDE, &line].concat(), &site);
            assert_eq!((below, gaps), (None, vec![GapCause::NoAuthResults]), "{line}");
            assert!(found(&[&line, OUTSIDE].concat(), &site).0.is_some(), "{line}");
        }
        assert!(found(&[OUTSIDE, &literal].concat(), &site).0.is_some());
        // Of two lines about one method the upper one is the filter's.
        let forged = literal.replace("bank.test", "forged.test");
        let (findings, _) = found(&[OUTSIDE, &literal, &forged].concat(), &site);
        assert_eq!(domains(&findings.unwrap()), [("dkim", "pass", "bank.test".to_owned())]);
    }

    #[test]
    fn helo_never_counts_as_mail_from() {
        let scope = |properties: &str| {
            let line = format!("Authentication-Results: mx.ours.test; spf=pass {properties}\n");
            let (findings, _) = found(&[&line, OUTSIDE].concat(), &site());
            let findings = findings.unwrap();
            (findings.spf[0].scope, findings.evaluated.spf, findings.mail_from.is_some())
        };
        assert_eq!(scope("smtp.helo=bank.test"), (SpfScope::Helo, false, false));
        assert_eq!(scope("smtp.mailfrom=\"\" smtp.helo=bank.test"), (SpfScope::Helo, false, false));
        assert_eq!(scope("smtp.mailfrom=<> smtp.helo=bank.test"), (SpfScope::Helo, false, false));
        assert_eq!(
            scope("smtp.mailfrom=bank.test smtp.helo=x.test"),
            (SpfScope::MailFrom, true, false)
        );
        assert_eq!(scope("smtp.mailfrom=v@bank.test"), (SpfScope::MailFrom, true, true));
        assert_eq!(scope(""), (SpfScope::Unnamed, true, false));
    }
}
