//! Station 5: did the subject message come from the recipient of this response?
//!
//! Takes: a recipient, the evidence, the settings. Gives: a `Verdict` and the gaps in it.
//! The question is asked for the recipient R = local@d and no other address: DMARC proves the From
//! domain, but the response goes to R, so "DMARC passed" alone proves nothing.
//! The five verdicts never collapse; what is not known is a gap with its cause. Law 5.
//! Standards: RFC 3834 §4, RFC 7208 §2.6, RFC 6376, RFC 9989 §4.4.

use crate::judge::alignment::{Aligned, aligned};
use crate::judge::decision::{FailureKind, ProofKind, Scope, Verdict};
use crate::judge::evidence::{
    Alignment, AuthResult, DmarcFacts, DmarcPolicy, DmarcRecord, Evidence, Findings, Gap, GapCause,
    Source, SpfFinding, SpfScope,
};
use crate::judge::policy::{PnoneMeans, Policy, SoftfailMeans};
use crate::mail::address::{Address, Domain};

/// A verdict, with the gaps that belong to this recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The verdict.
    pub verdict: Verdict,
    /// What could not be known of this recipient's domain.
    pub gaps: Vec<Gap>,
    /// Whether a signature that no source has looked at could still prove a recipient who failed.
    pub open: bool,
}

/// The verdict for one recipient with a domain.
///
/// The first source that proves or fails the recipient decides: the evidence has the best first.
///
/// Why not at once where it failed without a word of DKIM: a forwarder's address fails SPF, and the
/// signature of what it forwards is still good (RFC 7208 §10.3). Of later sources only signatures
/// count then: what a domain's SPF says by now is no news of the day the message came.
pub fn verdict(recipient: &Address, evidence: &Evidence, policy: &Policy) -> Judged {
    let Some(domain) = recipient.domain() else {
        // Why: an address literal has no SPF, DKIM or DMARC of its own (RFC 5321 §4.1.3). That is
        // known, whatever else is not.
        return Judged { verdict: Verdict::Unauthenticated, gaps: Vec::new(), open: false };
    };
    let question = Question { recipient, domain, evidence, policy };
    let mut gaps = Vec::new();
    let (mut failed, mut open, mut left) = (None, false, None);
    let mut excused = false;
    for findings in &evidence.findings {
        if failed.is_some() && !open {
            break;
        }
        if failed.is_some() {
            if let Some(verdict) = question.signature_proof(findings) {
                return Judged { verdict, gaps, open: false };
            }
            open &= !question.knows_signatures(findings);
            continue;
        }
        let mut missing = Vec::new();
        let asked = question.ask(findings, &mut missing);
        excused |= question.has_passed_for_everybody(findings);
        missing.retain(|gap| !gaps.contains(gap));
        gaps.append(&mut missing);
        match asked {
            Some(verdict @ Verdict::Authenticated { .. }) => {
                return Judged { verdict, gaps, open: false };
            }
            // Why: DMARC passed when it came, as the domain's own record wills; that another source
            // sees less of it is no failure.
            Some(Verdict::Failed { by: FailureKind::Dmarc }) if excused => {}
            Some(verdict @ Verdict::Failed { .. }) => {
                (failed, open) = (Some(verdict), !question.knows_signatures(findings));
            }
            Some(Verdict::Unresolved) => left = Some(Verdict::Unresolved),
            // Why: whoever got all the answers has resolved what an earlier source had not.
            Some(other) if findings.evaluated.spf && findings.evaluated.dkim => left = Some(other),
            Some(other) => left = left.or(Some(other)),
            None => {}
        }
    }
    // Why: without SPF nobody asked the half of it, and the gateway is the remedy.
    let hidden = |verdict: &Verdict| *verdict == Verdict::Unauthenticated && hides_client(evidence);
    let left = left.filter(|verdict| !hidden(verdict));
    let verdict = failed.or(left).unwrap_or_else(|| nothing_known(evidence));
    Judged { verdict, gaps, open }
}

fn in_words(source: &Source) -> &'static str {
    match source {
        Source::AuthResults { .. } => "our Authentication-Results line",
        Source::OwnReceived => "the way it came in",
        Source::Reverified => "what was verified now",
        Source::Tap => "the tap",
        Source::Arc { .. } => "the seal",
    }
}

/// Whether a gateway hides the client, and no source knows SPF of it otherwise.
fn hides_client(evidence: &Evidence) -> bool {
    let is_hidden = GapCause::BehindRelay.is_among(&evidence.gaps);
    is_hidden && !evidence.findings.iter().any(|findings| findings.evaluated.spf)
}

/// Why nothing is known: without a tap that is the cause, whatever else is missing, because the
/// tap is the remedy.
fn nothing_known(evidence: &Evidence) -> Verdict {
    let causes = evidence.gaps.iter().map(|gap| gap.cause);
    let rank = |cause: &GapCause| match cause {
        GapCause::NoTap => 0,
        GapCause::BehindRelay => 1,
        GapCause::NotInStore => 2,
        GapCause::Truncated => 3,
        _ => 4,
    };
    Verdict::Unknown { cause: causes.min_by_key(rank).unwrap_or(GapCause::NotEvaluated) }
}

/// One recipient's question to one source.
struct Question<'a> {
    recipient: &'a Address,
    domain: &'a Domain,
    evidence: &'a Evidence,
    policy: &'a Policy,
}

impl Question<'_> {
    /// What this source says of the recipient; `None` when it says nothing of it.
    fn ask(&self, findings: &Findings, gaps: &mut Vec<Gap>) -> Option<Verdict> {
        if let Some(proof) = self.proof(findings) {
            return Some(proof);
        }
        if let Some(failure) = self.failure(findings, gaps) {
            return Some(Verdict::Failed { by: failure });
        }
        let evaluated = findings.evaluated;
        if !(evaluated.spf || evaluated.dkim || evaluated.dmarc) {
            return None;
        }
        if !(evaluated.spf && evaluated.dkim) {
            let missing = if evaluated.spf { "DKIM" } else { "SPF of MAIL FROM" };
            gaps.push(Gap::new(
                GapCause::NotEvaluated,
                &format!("{} says nothing of {missing}", in_words(&findings.source)),
            ));
        }
        if self.has_header_signed(findings) {
            let detail = "the body that an aligned signature covers is not there as it was";
            gaps.push(Gap::new(GapCause::NotEvaluated, detail));
        }
        match self.is_unresolved(findings) || GapCause::Dns.is_among(gaps) {
            true => Some(Verdict::Unresolved),
            false => Some(Verdict::Unauthenticated),
        }
    }

    /// The strongest proof: one of the address before one of the domain.
    fn proof(&self, findings: &Findings) -> Option<Verdict> {
        if findings.own_submission.is_some() && self.policy.site.is_local_domain(self.domain) {
            return Some(self.authenticated(ProofKind::OwnSubmission, self.domain, Scope::Address));
        }
        let proofs = self.spf_proofs(findings).chain(self.dkim_proofs(findings));
        let proofs = proofs.chain(self.dmarc_proofs(findings));
        self.strongest(proofs.chain(self.header_proofs(findings)))
    }

    /// The strongest proof by a signature of the message itself.
    fn signature_proof(&self, findings: &Findings) -> Option<Verdict> {
        self.strongest(self.dkim_proofs(findings).chain(self.header_proofs(findings)))
    }

    /// Whether this source looked at the signatures, and no later answer could change the outcome.
    fn knows_signatures(&self, findings: &Findings) -> bool {
        findings.evaluated.dkim && !self.is_unresolved(findings)
    }

    fn strongest<'f>(
        &self,
        proofs: impl Iterator<Item = (ProofKind, &'f Domain, Scope)>,
    ) -> Option<Verdict> {
        // Why: of equal ones the first counts, and `max_by_key` would give the last.
        let mut best: Option<(ProofKind, &Domain, Scope)> = None;
        for proof in proofs {
            if best.is_none_or(|(_, _, scope)| proof.2 > scope) {
                best = Some(proof);
            }
        }
        best.map(|(by, domain, scope)| self.authenticated(by, domain, scope))
    }

    /// SPF of MAIL FROM proves the address it was asked for; HELO proves nobody (RFC 7208 §2.3).
    fn spf_proofs<'f>(
        &'f self,
        findings: &'f Findings,
    ) -> impl Iterator<Item = (ProofKind, &'f Domain, Scope)> {
        let passed = findings
            .spf
            .iter()
            .filter(|spf| spf.result == AuthResult::Pass && spf.scope == SpfScope::MailFrom)
            .filter(|spf| spf.everybody.is_none());
        // Why less: nobody knows how many clients the record let in that a forwarder saw.
        let sealed = matches!(findings.source, Source::Arc { .. });
        passed.filter_map(move |spf| {
            let domain = spf.domain.as_ref()?;
            let is_address = domain == self.domain && self.is_mail_from(spf, findings) && !sealed;
            let kind = if spf.guessed { ProofKind::SpfGuess } else { ProofKind::Spf };
            let scope = match self.aligned(domain, self.spf_mode()) {
                Aligned::Same if is_address && !spf.guessed => Scope::Address,
                Aligned::Same | Aligned::InLine | Aligned::Sibling => Scope::DomainOnly,
                Aligned::No | Aligned::NotKnown => return None,
            };
            Some((kind, domain, scope))
        })
    }

    fn is_mail_from(&self, spf: &SpfFinding, findings: &Findings) -> bool {
        let believed = findings.mail_from.as_ref().and_then(|path| path.address());
        let said = spf.address.as_ref().or(believed);
        said.is_some_and(|address| address.same_mailbox(self.recipient))
    }

    /// A signature proves the recipient when he stands in a From or Sender that it covers.
    fn dkim_proofs<'f>(
        &'f self,
        findings: &'f Findings,
    ) -> impl Iterator<Item = (ProofKind, &'f Domain, Scope)> {
        let sound = is_from_sound(findings);
        let passed =
            findings.dkim.iter().filter(move |dkim| sound && dkim.result == AuthResult::Pass);
        passed.filter_map(move |dkim| {
            let domain = dkim.domain.as_ref()?;
            let signed = (dkim.signs_from && self.is_author(findings))
                || (dkim.signs_sender && self.is_sender(findings));
            // Why less of one that so many got: who holds one signed message can send it to all
            // our users, with its author for the reverse-path.
            let proves = signed && !dkim.is_replayed();
            let scope = match self.aligned(domain, self.dkim_mode()) {
                Aligned::Same | Aligned::InLine if proves => Scope::Address,
                Aligned::Same | Aligned::InLine | Aligned::Sibling => Scope::DomainOnly,
                Aligned::No | Aligned::NotKnown => return None,
            };
            Some((ProofKind::Dkim, domain, scope))
        })
    }

    /// A signature that is right for the header alone proves that its domain once signed these
    /// fields. Anybody can put another body behind them, so it never proves more than the domain.
    fn header_proofs<'f>(
        &'f self,
        findings: &'f Findings,
    ) -> impl Iterator<Item = (ProofKind, &'f Domain, Scope)> {
        let sound = is_from_sound(findings);
        let signed = findings.dkim.iter().filter(move |dkim| {
            sound && dkim.header_only && dkim.signs_from && dkim.result != AuthResult::Pass
        });
        signed.filter_map(move |dkim| {
            let domain = dkim.domain.as_ref()?;
            let aligned = self.aligned(domain, self.dkim_mode());
            let is_near = matches!(aligned, Aligned::Same | Aligned::InLine);
            (is_near && self.is_author(findings)).then_some((
                ProofKind::DkimHeader,
                domain,
                Scope::DomainOnly,
            ))
        })
    }

    /// DMARC pass proves the From domain, so the recipient only where he is the author.
    fn dmarc_proofs<'f>(
        &'f self,
        findings: &'f Findings,
    ) -> impl Iterator<Item = (ProofKind, &'f Domain, Scope)> {
        let sound = is_from_sound(findings);
        let passed =
            findings.dmarc.iter().filter(move |dmarc| sound && dmarc.result == AuthResult::Pass);
        passed.filter_map(move |dmarc| {
            let domain = dmarc.from_domain.as_ref()?;
            let scope = match self.aligned(domain, Alignment::Relaxed) {
                Aligned::Same if self.is_author(findings) && !self.is_replayed(findings) => {
                    Scope::Address
                }
                Aligned::Same | Aligned::InLine | Aligned::Sibling => Scope::DomainOnly,
                Aligned::No | Aligned::NotKnown => return None,
            };
            Some((ProofKind::Dmarc, domain, scope))
        })
    }

    /// Whether a signature that may be what DMARC passed by was sent to very many.
    fn is_replayed(&self, findings: &Findings) -> bool {
        let passed = findings.dkim.iter().filter(|dkim| dkim.result == AuthResult::Pass);
        let mut replayed = passed.filter(|dkim| dkim.is_replayed());
        replayed.any(|dkim| self.may_speak(dkim.domain.as_ref(), Alignment::Relaxed))
    }

    /// What fails the recipient's own domain, whatever the From domain is. Only where nothing
    /// authenticated him.
    fn failure(&self, findings: &Findings, gaps: &mut Vec<Gap>) -> Option<FailureKind> {
        let of_domain = |result: AuthResult| {
            findings.spf.iter().any(|spf| {
                spf.result == result
                    && spf.scope == SpfScope::MailFrom
                    && spf.domain.as_ref() == Some(self.domain)
            })
        };
        if of_domain(AuthResult::Fail) {
            return Some(FailureKind::Spf);
        }
        let softfail = of_domain(AuthResult::SoftFail);
        if softfail && self.policy.softfail == SoftfailMeans::Always {
            return Some(FailureKind::SoftFail);
        }
        let published = match self.dmarc_facts() {
            Some(Ok(dmarc)) => dmarc.record.as_ref(),
            Some(Err(gap)) => {
                gaps.push(gap.clone());
                None
            }
            None => None,
        };
        if softfail && self.policy.softfail == SoftfailMeans::WithDmarc && published.is_some() {
            return Some(FailureKind::SoftFail);
        }
        if self.has_passed_for_everybody(findings) || self.has_header_signed(findings) {
            return None;
        }
        let counts = |policy: DmarcPolicy| {
            policy != DmarcPolicy::None || self.policy.pnone == PnoneMeans::Fail
        };
        let said_failed = findings.dmarc.iter().any(|dmarc| {
            dmarc.result == AuthResult::Fail && dmarc.from_domain.as_ref() == Some(self.domain)
        });
        // Why before what was said of DMARC: filters say `fail` of it when a key could not be had.
        if self.is_unresolved(findings) {
            return None;
        }
        if said_failed && published.is_none_or(|record| counts(record.policy)) {
            return Some(FailureKind::Dmarc);
        }
        // Why: a method that was not evaluated could have passed.
        // A signature without a key, expired when it came or behind a heap of others could not:
        // or whoever forges would only have to add one.
        let all_asked = findings.evaluated.spf && findings.evaluated.dkim;
        let published = published.is_some_and(|record| counts(record.policy));
        (published && all_asked).then_some(FailureKind::Dmarc)
    }

    /// Whether SPF passed aligned by a term that lets everybody in. It proves nobody; but DMARC
    /// counts it, so by the domain's own will the message did not fail.
    fn has_passed_for_everybody(&self, findings: &Findings) -> bool {
        findings.spf.iter().any(|spf| {
            spf.result == AuthResult::Pass
                && spf.scope != SpfScope::Helo
                && spf.everybody.is_some()
                && self.may_speak(spf.domain.as_ref(), self.spf_mode())
        })
    }

    /// Whether an aligned signature is right for the header, From included, and the body is not
    /// there or another: the message may have passed when it came. Nobody can forge that.
    fn has_header_signed(&self, findings: &Findings) -> bool {
        is_from_sound(findings)
            && findings.dkim.iter().any(|dkim| {
                dkim.header_only
                    && dkim.signs_from
                    && dkim.result != AuthResult::Pass
                    && dkim.domain.is_some()
                    && self.may_speak(dkim.domain.as_ref(), self.dkim_mode())
            })
    }

    /// Whether the domain may be aligned with the recipient's, as far as is known.
    fn may_speak(&self, domain: Option<&Domain>, mode: Alignment) -> bool {
        domain.is_none_or(|domain| self.aligned(domain, mode) != Aligned::No)
    }

    /// Whether another try could prove the recipient: a temporary error of a domain that may
    /// speak for his.
    fn is_unresolved(&self, findings: &Findings) -> bool {
        let spf = findings.spf.iter().any(|spf| {
            spf.result == AuthResult::TempError
                && spf.scope != SpfScope::Helo
                && self.may_speak(spf.domain.as_ref(), self.spf_mode())
        });
        let dkim = findings.dkim.iter().any(|dkim| {
            dkim.result == AuthResult::TempError
                && self.may_speak(dkim.domain.as_ref(), self.dkim_mode())
        });
        let dmarc = findings.dmarc.iter().any(|dmarc| {
            dmarc.result == AuthResult::TempError
                && self.may_speak(dmarc.from_domain.as_ref(), Alignment::Relaxed)
        });
        // A signature or an SPF pass of a domain whose organization could not be found out.
        let not_known = findings.dkim.iter().any(|dkim| {
            dkim.result == AuthResult::Pass
                && dkim.domain.as_ref().is_some_and(|domain| {
                    self.aligned(domain, self.dkim_mode()) == Aligned::NotKnown
                })
        });
        spf || dkim || dmarc || not_known
    }

    fn aligned(&self, other: &Domain, mode: Alignment) -> Aligned {
        aligned(self.domain, other, &self.evidence.domains, mode)
    }

    fn dmarc_facts(&self) -> Option<&Result<DmarcFacts, Gap>> {
        self.evidence.domains.get(self.domain).map(|facts| &facts.dmarc)
    }

    /// aspf= of the recipient's own record; relaxed without one.
    fn spf_mode(&self) -> Alignment {
        self.record_mode(|record| record.spf_alignment)
    }

    /// adkim= of the recipient's own record; relaxed without one.
    fn dkim_mode(&self) -> Alignment {
        self.record_mode(|record| record.dkim_alignment)
    }

    fn record_mode(&self, mode: impl Fn(&DmarcRecord) -> Alignment) -> Alignment {
        let facts = self.dmarc_facts().and_then(|dmarc| dmarc.as_ref().ok());
        facts.and_then(|dmarc| dmarc.record.as_ref()).map(mode).unwrap_or_default()
    }

    fn is_author(&self, findings: &Findings) -> bool {
        findings.from.iter().any(|author| author.same_mailbox(self.recipient))
    }

    fn is_sender(&self, findings: &Findings) -> bool {
        findings.sender.as_ref().is_some_and(|sender| sender.same_mailbox(self.recipient))
    }

    fn authenticated(&self, by: ProofKind, domain: &Domain, scope: Scope) -> Verdict {
        Verdict::Authenticated { by, domain: domain.clone(), scope }
    }
}

/// Whether the From field has authors of one domain and no other: a field without one, or with
/// several domains, cannot be authenticated (RFC 9989 §4.4), and shows each reader another author.
fn is_from_sound(findings: &Findings) -> bool {
    if findings.author_sign.is_some() {
        return false;
    }
    let mut domains = findings.from.iter().map(Address::domain);
    let first = domains.next().flatten();
    first.is_some() && domains.all(|domain| domain == first)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::judge::decision::VerdictKind;
    use crate::judge::evidence::{DkimFinding, DmarcFinding, DomainFacts, Receives, Source};
    use crate::judge::site::Site;
    use crate::mail::address::ReversePath;

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    /// What an Authentication-Results line of ours could say. Written as it would be:
    /// `spf=pass joe@bank.example; dkim=pass bank.example; dmarc=pass bank.example`.
    fn findings(results: &str, mail_from: &str, from: &str) -> Findings {
        let mut findings = Findings {
            mail_from: Some(ReversePath::Address(address(mail_from))),
            from: from.split(',').filter(|text| !text.is_empty()).map(address).collect(),
            ..Findings::of(Source::AuthResults { authserv_id: "mx.uni.example".to_owned() })
        };
        for word in results.split("; ").filter(|word| !word.is_empty()) {
            let (method, rest) = word.split_once('=').unwrap();
            let (result, identity) = rest.split_once(' ').unwrap_or((rest, ""));
            let result = AuthResult::parse(result).unwrap();
            let named =
                (!identity.is_empty()).then(|| domain(identity.rsplit('@').next().unwrap()));
            match method {
                "spf" | "helo" => {
                    findings.evaluated.spf |= method == "spf";
                    let scope = if method == "spf" { SpfScope::MailFrom } else { SpfScope::Helo };
                    let address = identity.contains('@').then(|| address(identity));
                    findings.spf.push(SpfFinding {
                        scope,
                        address,
                        ..SpfFinding::of(result, named)
                    });
                }
                "dkim" => {
                    findings.evaluated.dkim = true;
                    let dkim = DkimFinding::of(result, named);
                    findings.dkim.push(DkimFinding { signs_from: true, ..dkim });
                }
                "dmarc" => {
                    findings.evaluated.dmarc = true;
                    findings.dmarc.push(DmarcFinding { result, from_domain: named });
                }
                other => panic!("{other}"),
            }
        }
        findings
    }

    /// `bank.example=reject` publishes there; `?` is DNS trouble; `s` behind the policy is strict.
    fn facts(published: &[(&str, &str)]) -> BTreeMap<Domain, DomainFacts> {
        let mut all = BTreeMap::new();
        for of in [
            "bank.example",
            "mail.bank.example",
            "news.bank.example",
            "spam.example",
            "open.example",
            "sub.open.example",
        ] {
            let organizational = of.split('.').rev().take(2).collect::<Vec<_>>();
            let organizational =
                domain(&organizational.into_iter().rev().collect::<Vec<_>>().join("."));
            let record = published.iter().find(|(at, _)| *at == organizational.as_str());
            let dmarc = match record.map(|(_, policy)| *policy) {
                Some("?") => Err(Gap::new(GapCause::Dns, "no answer")),
                published => {
                    let record = published.map(|policy| {
                        let mode = match policy.ends_with('s') {
                            true => Alignment::Strict,
                            false => Alignment::Relaxed,
                        };
                        let policy = match policy.trim_end_matches('s') {
                            "none" => DmarcPolicy::None,
                            _ => DmarcPolicy::Reject,
                        };
                        DmarcRecord {
                            published_at: organizational.clone(),
                            policy,
                            dkim_alignment: mode,
                            spf_alignment: mode,
                        }
                    });
                    Ok(DmarcFacts { organizational, record, above: None })
                }
            };
            all.insert(domain(of), DomainFacts { dmarc, receives: Ok(Receives::Yes) });
        }
        all
    }

    fn judged(
        recipient: &str,
        findings: Findings,
        published: &[(&str, &str)],
        policy: &Policy,
    ) -> String {
        let evidence = Evidence {
            findings: vec![findings],
            domains: facts(published),
            recipients: Vec::new(),
            gaps: vec![Gap::new(GapCause::NoTap, "")],
        };
        let verdict = verdict(&address(recipient), &evidence, policy).verdict;
        match verdict.by() {
            Some(by) => format!("{} {by}", verdict.kind()),
            None => verdict.kind().to_string(),
        }
    }

    const DMARC: &[(&str, &str)] = &[("bank.example", "reject")];
    const NONE: &[(&str, &str)] = &[];

    /// Goal: each way to be authenticated, and each near miss. Method: the results as our border
    /// writes them, a recipient, the verdict. MAIL FROM is joe@bank.example, From is joe's too.
    #[test]
    fn what_authenticates_and_what_does_not() {
        for (recipient, results, published, expected) in [
            // SPF of MAIL FROM proves that address, and the domain for others.
            (
                "joe@bank.example",
                "spf=pass joe@bank.example; dkim=none",
                DMARC,
                "authenticated spf",
            ),
            ("JOE@bank.example", "spf=pass bank.example; dkim=none", DMARC, "authenticated spf"),
            (
                "ann@bank.example",
                "spf=pass joe@bank.example; dkim=none",
                DMARC,
                "authenticated spf-domain-only",
            ),
            (
                "joe@mail.bank.example",
                "spf=pass joe@bank.example; dkim=none",
                DMARC,
                "authenticated spf-domain-only",
            ),
            // HELO never authenticates.
            ("joe@bank.example", "helo=pass bank.example", NONE, "unknown no-tap"),
            // A signature proves an author.
            ("joe@bank.example", "spf=none; dkim=pass bank.example", DMARC, "authenticated dkim"),
            (
                "joe@bank.example",
                "spf=none; dkim=pass mail.bank.example",
                DMARC,
                "authenticated dkim",
            ),
            (
                "ann@bank.example",
                "spf=fail ann@bank.example; dkim=pass bank.example",
                DMARC,
                "authenticated dkim-domain-only",
            ),
            (
                "joe@mail.bank.example",
                "spf=none; dkim=pass news.bank.example",
                DMARC,
                "authenticated dkim-domain-only",
            ),
            // DMARC pass proves the author, and nobody of another domain.
            ("joe@bank.example", "dmarc=pass bank.example", DMARC, "authenticated dmarc"),
            (
                "ann@bank.example",
                "dmarc=pass bank.example",
                DMARC,
                "authenticated dmarc-domain-only",
            ),
            // The address is proven by a later method, the domain by an earlier one: address wins.
            (
                "joe@bank.example",
                "spf=pass ann@bank.example; dkim=pass bank.example",
                DMARC,
                "authenticated dkim",
            ),
        ] {
            let findings = findings(results, "joe@bank.example", "joe@bank.example");
            let found = judged(recipient, findings, published, &Policy::default());
            assert_eq!(found, expected, "{recipient} <- {results}");
        }
    }

    /// The heart of it: a passing DMARC of the spammer's own says nothing for his victim.
    #[test]
    fn a_spammer_with_a_dmarc_pass_of_his_own_gets_nothing_sent_to_his_victim() {
        let results = "spf=none bank.example; dkim=pass spam.example; dmarc=pass spam.example";
        let spam = || findings(results, "victim@bank.example", "offer@spam.example");
        let policy = Policy::default();
        assert_eq!(judged("victim@bank.example", spam(), DMARC, &policy), "failed dmarc-fail");
        assert_eq!(judged("victim@bank.example", spam(), NONE, &policy), "unauthenticated");
        assert_eq!(judged("offer@spam.example", spam(), NONE, &policy), "authenticated dkim");
    }

    #[test]
    fn failed_is_computed_for_the_recipients_own_domain() {
        for (results, published, expected) in [
            ("spf=fail joe@bank.example; dkim=none", NONE, "failed spf-fail"),
            ("spf=fail other.example; dkim=none", NONE, "unauthenticated"),
            ("spf=softfail bank.example; dkim=none", NONE, "unauthenticated"),
            ("spf=softfail bank.example; dkim=none", DMARC, "failed spf-softfail"),
            ("spf=softfail bank.example", DMARC, "failed spf-softfail"),
            ("spf=none; dkim=none", DMARC, "failed dmarc-fail"),
            ("spf=neutral bank.example; dkim=fail bank.example", DMARC, "failed dmarc-fail"),
            ("spf=permerror bank.example; dkim=permerror bank.example", DMARC, "failed dmarc-fail"),
            ("spf=none; dkim=none", NONE, "unauthenticated"),
            ("spf=none; dkim=none", &[("bank.example", "none")], "failed dmarc-fail"),
            // Said by our border when it came in, whatever is published now.
            ("dmarc=fail bank.example", NONE, "failed dmarc-fail"),
            ("dmarc=fail spam.example", DMARC, "unauthenticated"),
            // DKIM was not evaluated: it could have passed.
            ("spf=none", DMARC, "unauthenticated"),
        ] {
            let findings = findings(results, "joe@bank.example", "x@spam.example");
            let found = judged("joe@bank.example", findings, published, &Policy::default());
            assert_eq!(found, expected, "{results}");
        }
    }

    #[test]
    fn settings_say_what_softfail_and_p_none_mean() {
        let softfail = || findings("spf=softfail bank.example; dkim=none", "joe@bank.example", "");
        let none = || findings("spf=none; dkim=none", "joe@bank.example", "");
        let always = Policy { softfail: SoftfailMeans::Always, ..Policy::default() };
        let never = Policy { softfail: SoftfailMeans::Never, ..Policy::default() };
        let neutral = Policy { pnone: PnoneMeans::Neutral, ..Policy::default() };
        let judged = |findings, published: &[(&str, &str)], policy| {
            judged("joe@bank.example", findings, published, policy)
        };
        assert_eq!(judged(softfail(), NONE, &always), "failed spf-softfail");
        // Never a failure by itself; DMARC still fails it.
        assert_eq!(judged(softfail(), NONE, &never), "unauthenticated");
        assert_eq!(judged(softfail(), DMARC, &never), "failed dmarc-fail");
        assert_eq!(judged(none(), &[("bank.example", "none")], &neutral), "unauthenticated");
        assert_eq!(judged(none(), DMARC, &neutral), "failed dmarc-fail");
        let said = findings("dmarc=fail bank.example", "joe@bank.example", "");
        assert_eq!(judged(said, &[("bank.example", "none")], &neutral), "unauthenticated");
    }

    /// A key that is not there, an expired signature: whoever forges could add those.
    #[test]
    fn a_signature_that_does_not_pass_saves_nobody_from_failing() {
        for result in ["permerror", "neutral", "policy", "fail"] {
            let results = format!("spf=none; dkim={result} bank.example");
            let mut findings = findings(&results, "joe@bank.example", "x@spam.example");
            findings.dkim[0].reason = Some("no key is published".to_owned());
            let found = judged("joe@bank.example", findings, DMARC, &Policy::default());
            assert_eq!(found, "failed dmarc-fail", "{result}");
        }
    }

    /// A bounce that returns only the header of a message with an aligned signature.
    #[test]
    fn a_header_that_is_signed_fails_nobody_and_proves_its_author_s_domain() {
        let signed = |domain: &str, from: &str| {
            let results = format!("spf=none; dkim=neutral {domain}");
            let mut findings = findings(&results, "joe@bank.example", from);
            findings.dkim[0].header_only = true;
            judged("joe@bank.example", findings, DMARC, &Policy::default())
        };
        let proven = "authenticated dkim-header-domain-only";
        assert_eq!(signed("bank.example", "joe@bank.example"), proven);
        assert_eq!(signed("bank.example", "ann@bank.example"), "unauthenticated");
        assert_eq!(signed("spam.example", "joe@bank.example"), "failed dmarc-fail");
        let two = "ann@bank.example,x@spam.example";
        assert_eq!(signed("bank.example", two), "failed dmarc-fail");
    }

    /// DMARC counts such a pass: the domain's own record let the client in.
    #[test]
    fn a_pass_for_everybody_proves_nobody_and_fails_nobody() {
        for (results, expected) in [
            ("spf=pass bank.example; dkim=none", "unauthenticated"),
            ("spf=pass mail.bank.example; dkim=none", "unauthenticated"),
            ("spf=pass spam.example; dkim=none", "failed dmarc-fail"),
            ("helo=pass bank.example; spf=none; dkim=none", "failed dmarc-fail"),
        ] {
            let mut findings = findings(results, "joe@bank.example", "joe@bank.example");
            findings.spf[0].everybody = Some("exists:%{i}.x.example".to_owned());
            let found = judged("joe@bank.example", findings, DMARC, &Policy::default());
            assert_eq!(found, expected, "{results}");
        }
    }

    /// One signature that more than 20 got without SPF is a replay: it proves its domain, and so
    /// does the DMARC pass beside it. SPF of the very recipient proves him all the same.
    #[test]
    fn a_signature_that_very_many_got_proves_its_domain_only() {
        let dkim = "spf=none; dkim=pass bank.example";
        let dmarc = "spf=none; dkim=pass bank.example; dmarc=pass bank.example";
        let sent = "spf=pass joe@bank.example; dkim=pass bank.example";
        for (results, recipients, expected) in [
            (dkim, 20, "authenticated dkim"),
            (dkim, 21, "authenticated dkim-domain-only"),
            (dmarc, 20, "authenticated dkim"),
            (dmarc, 21, "authenticated dkim-domain-only"),
            (sent, 21, "authenticated spf"),
        ] {
            let mut findings = findings(results, "joe@bank.example", "joe@bank.example");
            findings.dkim[0].recipients = recipients;
            let found = judged("joe@bank.example", findings, DMARC, &Policy::default());
            assert_eq!(found, expected, "{results} {recipients}");
        }
    }

    #[test]
    fn strict_records_are_kept_to() {
        let strict: &[(&str, &str)] = &[("bank.example", "rejects")];
        let by_child =
            || findings("spf=none; dkim=pass mail.bank.example", "x@y.example", "joe@bank.example");
        let policy = Policy::default();
        assert_eq!(judged("joe@bank.example", by_child(), strict, &policy), "failed dmarc-fail");
        assert_eq!(judged("joe@bank.example", by_child(), DMARC, &policy), "authenticated dkim");
    }

    #[test]
    fn dns_trouble_is_unresolved_and_never_failed() {
        for (results, published, expected) in [
            ("spf=temperror bank.example; dkim=none", DMARC, "unresolved"),
            ("spf=none; dkim=temperror bank.example", DMARC, "unresolved"),
            ("spf=none; dkim=temperror", DMARC, "unresolved"),
            ("spf=none; dkim=temperror spam.example", DMARC, "failed dmarc-fail"),
            ("spf=none; dkim=none; dmarc=temperror bank.example", NONE, "unresolved"),
            ("spf=none; dkim=temperror bank.example; dmarc=fail bank.example", NONE, "unresolved"),
            ("spf=none; dkim=temperror bank.example; dmarc=fail bank.example", DMARC, "unresolved"),
            ("spf=none; dkim=none", &[("bank.example", "?")], "unresolved"),
            ("spf=softfail bank.example; dkim=none", &[("bank.example", "?")], "unresolved"),
            ("spf=none; dkim=pass mail.bank.example", &[("bank.example", "?")], "unresolved"),
            // What is proven or failed without DNS stays so.
            ("spf=pass joe@bank.example; dkim=none", &[("bank.example", "?")], "authenticated spf"),
            ("spf=fail bank.example; dkim=temperror spam.example", DMARC, "failed spf-fail"),
        ] {
            let findings = findings(results, "joe@bank.example", "joe@bank.example");
            let found = judged("joe@bank.example", findings, published, &Policy::default());
            assert_eq!(found, expected, "{results}");
        }
    }

    #[test]
    fn a_from_field_that_shows_each_reader_another_author_proves_nobody() {
        for from in ["", "joe@bank.example,ann@spam.example", "joe@[192.0.2.1]"] {
            let results = "spf=none; dkim=pass bank.example; dmarc=pass bank.example";
            let findings = findings(results, "joe@bank.example", from);
            let found = judged("joe@bank.example", findings, NONE, &Policy::default());
            assert_eq!(found, "unauthenticated", "{from}");
        }
    }

    #[test]
    fn own_submission_proves_our_own_domains_only() {
        let site = Site { domains: [domain("bank.example")].into(), ..Site::default() };
        let policy = Policy { site, ..Policy::default() };
        let inside = || Findings {
            own_submission: Some("no line from outside".to_owned()),
            ..findings("", "joe@bank.example", "joe@bank.example")
        };
        let found = judged("joe@bank.example", inside(), DMARC, &policy);
        assert_eq!(found, "authenticated own-submission");
        // A hijacked account with a MAIL FROM from outside.
        assert_eq!(judged("victim@open.example", inside(), NONE, &policy), "unknown no-tap");
    }

    #[test]
    fn the_first_source_that_decides_wins_and_the_five_never_collapse() {
        let with = |results: &[&str]| {
            let findings = results
                .iter()
                .map(|results| findings(results, "joe@bank.example", "joe@bank.example"))
                .collect();
            let evidence = Evidence { findings, domains: facts(DMARC), ..Evidence::default() };
            verdict(&address("joe@bank.example"), &evidence, &Policy::default()).verdict.kind()
        };
        let pass = "spf=pass joe@bank.example; dkim=none";
        let fail = "spf=fail bank.example; dkim=none";
        let open = "spf=temperror bank.example; dkim=none";
        let nothing = "spf=none";
        assert_eq!(with(&[pass, fail]), VerdictKind::Authenticated);
        assert_eq!(with(&[fail, pass]), VerdictKind::Failed);
        assert_eq!(with(&[open, pass]), VerdictKind::Authenticated);
        assert_eq!(with(&[nothing, open]), VerdictKind::Unresolved);
        assert_eq!(with(&[nothing]), VerdictKind::Unauthenticated);
        assert_eq!(with(&[]), VerdictKind::Unknown);
    }

    /// Goal: what one source leaves open another closes, and nothing else does. Method: two sources
    /// in a row, a domain without DMARC, and the verdict; `open` says whether more should be asked.
    #[test]
    fn a_later_source_closes_what_an_earlier_one_left_open() {
        let spf_only = "spf=fail bank.example";
        let silent = "spf=fail bank.example; dkim=temperror bank.example";
        let signed = "spf=pass joe@bank.example; dkim=pass bank.example";
        for (results, expected, open) in [
            (&[spf_only][..], "failed spf-fail", true),
            (&[silent], "failed spf-fail", true),
            (&["spf=fail bank.example; dkim=fail bank.example"], "failed spf-fail", false),
            (&[spf_only, signed], "authenticated dkim", false),
            (&[silent, signed], "authenticated dkim", false),
            (&[spf_only, "spf=none; dkim=none", signed], "failed spf-fail", false),
            // What SPF says by now is no proof.
            (&[spf_only, "spf=pass joe@bank.example; dkim=none"], "failed spf-fail", false),
            (&[spf_only, "spf=none; dkim=temperror bank.example"], "failed spf-fail", true),
            (&[spf_only, "spf=none; dkim=pass spam.example"], "failed spf-fail", false),
            (&["spf=temperror bank.example", "spf=none; dkim=none"], "unauthenticated", false),
            (&["spf=temperror bank.example", "dkim=none"], "unresolved", false),
            (&["spf=temperror bank.example", "spf=temperror; dkim=none"], "unresolved", false),
        ] {
            let findings = results
                .iter()
                .map(|results| findings(results, "joe@bank.example", "joe@bank.example"))
                .collect();
            let evidence = Evidence { findings, domains: facts(NONE), ..Evidence::default() };
            let judged = verdict(&address("joe@bank.example"), &evidence, &Policy::default());
            let by = judged.verdict.by().map(|by| format!(" {by}")).unwrap_or_default();
            let found = format!("{}{by}", judged.verdict.kind());
            assert_eq!((found.as_str(), judged.open), (expected, open), "{results:?}");
        }
    }

    /// Goal: what is not known never looks like what is denied. Method: findings without SPF, as
    /// behind a gateway, with the gaps in any order.
    #[test]
    fn behind_a_gateway_that_hides_its_client_nothing_is_denied() {
        let gap = |cause| Gap::new(cause, "");
        for (results, gaps, expected) in [
            ("dkim=none", &[GapCause::BehindRelay][..], "unknown behind-relay"),
            ("dkim=fail bank.example", &[GapCause::BehindRelay], "unknown behind-relay"),
            ("", &[GapCause::NoAuthResults, GapCause::BehindRelay], "unknown behind-relay"),
            ("dkim=pass bank.example", &[GapCause::BehindRelay], "authenticated dkim"),
            ("dkim=temperror bank.example", &[GapCause::BehindRelay], "unresolved"),
            // A tap before the gateway, or the gateway itself, knew the client.
            ("spf=none; dkim=none", &[GapCause::BehindRelay], "unauthenticated"),
            ("dkim=none", &[], "unauthenticated"),
            ("", &[GapCause::NotInStore, GapCause::NoAuthResults], "unknown not-in-store"),
            ("", &[GapCause::Truncated, GapCause::NoKey], "unknown truncated"),
            ("", &[GapCause::NoKey], "unknown no-key"),
            ("", &[GapCause::NotStripped, GapCause::NoTap], "unknown no-tap"),
            ("", &[], "unknown not-evaluated"),
        ] {
            let findings = vec![findings(results, "joe@bank.example", "joe@bank.example")];
            let gaps = gaps.iter().copied().map(gap).collect();
            let evidence = Evidence { findings, domains: facts(NONE), gaps, ..Evidence::default() };
            let found =
                verdict(&address("joe@bank.example"), &evidence, &Policy::default()).verdict;
            let by = found.by().map(|by| format!(" {by}")).unwrap_or_default();
            assert_eq!(
                format!("{}{by}", found.kind()),
                expected,
                "{results} {gaps:?}",
                gaps = evidence.gaps
            );
        }
    }

    /// Goal: a signed Sender proves whoever stands in it, a Sender that is not signed nobody; aspf=s
    /// keeps SPF of a subdomain from proving anything.
    #[test]
    fn a_signed_sender_is_proven_and_strict_spf_is_kept_to() {
        let sent = |signs_sender, from: &str, sender: &str| {
            let mut findings = findings("spf=none; dkim=pass bank.example", "x@y.example", from);
            findings.sender = Some(address(sender));
            findings.dkim[0].signs_sender = signs_sender;
            judged("desk@bank.example", findings, DMARC, &Policy::default())
        };
        let (desk, joe) = ("desk@bank.example", "joe@bank.example");
        assert_eq!(sent(true, joe, desk), "authenticated dkim");
        assert_eq!(sent(false, joe, desk), "authenticated dkim-domain-only");
        assert_eq!(sent(true, joe, "ann@bank.example"), "authenticated dkim-domain-only");
        let strict: &[(&str, &str)] = &[("bank.example", "rejects")];
        let by_child = || findings("spf=pass joe@mail.bank.example; dkim=none", joe, joe);
        let policy = Policy::default();
        assert_eq!(judged(joe, by_child(), strict, &policy), "failed dmarc-fail");
        assert_eq!(judged(joe, by_child(), DMARC, &policy), "authenticated spf-domain-only");
        // A sibling's signature over his own From proves no more than the organization either.
        let sibling =
            findings("spf=none; dkim=pass news.bank.example", joe, "joe@mail.bank.example");
        let found = judged("joe@mail.bank.example", sibling, DMARC, &policy);
        assert_eq!(found, "authenticated dkim-domain-only");
        // DMARC of a sibling's From passes for it, and proves no more than the organization.
        let sibling = findings("dmarc=pass news.bank.example", joe, "n@news.bank.example");
        let found = judged("joe@mail.bank.example", sibling, DMARC, &policy);
        assert_eq!(found, "authenticated dmarc-domain-only");
    }

    /// What lets everybody in by the domain's own will fails nobody for another source either, one
    /// that saw another reverse-path.
    #[test]
    fn a_pass_for_everybody_is_no_failure_of_a_later_source() {
        let mut first = findings("spf=pass joe@bank.example", "joe@bank.example", "");
        first.spf[0].everybody = Some("+all".to_owned());
        let later = |results| findings(results, "x@spam.example", "joe@bank.example");
        for (results, expected) in [
            ("spf=none spam.example; dkim=none", "unauthenticated"),
            ("spf=none spam.example; dkim=pass bank.example", "authenticated"),
            ("spf=fail bank.example; dkim=none", "failed"),
        ] {
            let findings = vec![first.clone(), later(results)];
            let evidence = Evidence { findings, domains: facts(DMARC), ..Evidence::default() };
            let found = verdict(&address("joe@bank.example"), &evidence, &Policy::default());
            assert_eq!(found.verdict.kind().as_str(), expected, "{results}");
        }
    }

    #[test]
    fn an_address_literal_has_nothing_to_be_authenticated_by() {
        let findings = findings("spf=pass joe@bank.example", "joe@bank.example", "");
        let found = judged("joe@[192.0.2.1]", findings, NONE, &Policy::default());
        assert_eq!(found, "unauthenticated");
    }
}
