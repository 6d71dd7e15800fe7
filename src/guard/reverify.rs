//! Station 4, the part that verifies anew what a response embeds.
//!
//! Takes: the response and its case. Gives: `Findings` of our own: SPF of the client that our
//! border line names, for the reverse-path that our system wrote down; the signatures of the
//! embedded message. A tap's record or our own Authentication-Results come before them: they were
//! made when the message came in, and a key or record may be gone by now.
//! Bounds: the deadline of the whole evidence; nothing is asked when what is known decides already.
//! Standards: RFC 7208, RFC 6376.

use std::net::IpAddr;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use crate::auth::dkim::{DkimOutcome, DkimReport, Extent, Prepared};
use crate::auth::spf::{Identity, SpfOutcome};
use crate::guard::evidence::LATE;
use crate::guard::inquiry::Inquiry;
use crate::guard::recall::judged;
use crate::judge::Case;
use crate::judge::alignment::{is_near, is_signed_near};
use crate::judge::classify::{Class, Guarded};
use crate::judge::decision::{ProofKind, Verdict};
use crate::judge::evidence::{
    AuthResult, DkimFinding, DmarcFinding, Evaluated, Evidence, Findings, Gap, GapCause, Source,
    SpfFinding, SpfScope,
};
use crate::judge::original::{FoundAs, Origin, Original};
use crate::judge::policy::Policy;
use crate::judge::weighed::weighed;
use crate::mail::address::{Address, Domain, ReversePath};
use crate::mail::envelope::Envelope;
use crate::mail::header::Completeness;
use crate::mail::limits::{SPF_PASSES_CHECKED_MAX, VERIFIED_INLINE_BYTES_MAX};
use crate::mail::message::Message;
use crate::mail::time::Timestamp;

/// What the findings so far leave open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Every recipient is proven, or failed for good.
    Nothing,
    /// A recipient is proven by an SPF pass, which may let everybody in.
    Breadth,
    /// A recipient is neither proven nor failed, or failed and a signature could still prove it.
    Everything,
}

/// What may be verified anew.
#[derive(Clone, Copy)]
pub struct Again<'a> {
    /// Whose envelope.
    pub envelope: &'a Envelope,
    /// The response.
    pub message: &'a Message,
    /// What it says of itself.
    pub case: &'a Case,
    /// The policy in force.
    pub policy: &'a Policy,
}

/// What was verified, as far as it was asked for.
#[derive(Default)]
pub struct Verified {
    /// For the reverse-path that our system wrote down.
    spf: Option<(IpAddr, SpfOutcome)>,
    /// For other reverse-paths that our lines say SPF passed for.
    others: Vec<(IpAddr, SpfOutcome)>,
    dkim: Option<Signatures>,
}

/// What the signatures of the embedded message say.
enum Signatures {
    /// It is not there as it was.
    Missing,
    /// There was no answer in time.
    Late,
    Said(DkimReport),
}

impl Again<'_> {
    /// What is still open for a recipient, and can be verified at all.
    pub fn need(&self, evidence: &Evidence) -> Need {
        let case = self.case;
        let is_report = matches!(case.class, Class::Dsn(_) | Class::Mdn);
        let ours = case.origin != Some(Origin::Relayed);
        let placed_by_us = case.original.border.is_some();
        match case.class.guarded() == Guarded::Response && is_report && ours && placed_by_us {
            true => need(self.envelope, evidence, self.policy),
            false => Need::Nothing,
        }
    }

    /// Reverse-paths beside the recorded one that our own lines say SPF passed for.
    pub fn paths(&self, evidence: &Evidence) -> Vec<ReversePath> {
        let recorded = self.case.original.return_path.as_ref().and_then(ReversePath::address);
        let recorded = recorded.and_then(Address::domain);
        let mut domains: Vec<&Domain> = recorded.into_iter().collect();
        let mut paths = Vec::new();
        for spf in passes_of_ours(evidence) {
            let Some(domain) = spf.domain.as_ref().filter(|domain| !domains.contains(domain))
            else {
                continue;
            };
            domains.push(domain);
            // RFC 7208 §4.3: without a local part it is "postmaster".
            let address = || Address::parse(&format!("postmaster@{domain}"));
            paths.extend(spf.address.clone().or_else(address).map(ReversePath::Address));
        }
        paths.truncate(SPF_PASSES_CHECKED_MAX);
        paths
    }
}

impl Inquiry {
    /// Verifies what is needed, SPF and DKIM at once, by the deadline.
    pub async fn verify(
        &self,
        again: &Again<'_>,
        need: Need,
        paths: &[ReversePath],
        deadline: Instant,
    ) -> Verified {
        let original = &again.case.original;
        let spf = async {
            if need == Need::Nothing {
                return (None, Vec::new());
            }
            let recorded = original.return_path.as_ref();
            let spf = self.client_spf(original, recorded, deadline).await;
            let mut others = Vec::new();
            for path in paths {
                others.extend(self.client_spf(original, Some(path), deadline).await);
            }
            (spf, others)
        };
        let dkim = async {
            match need {
                Need::Nothing | Need::Breadth => None,
                Need::Everything => Some(self.signatures(again.message, original, deadline).await),
            }
        };
        let ((spf, others), dkim) = tokio::join!(spf, dkim);
        Verified { spf, others, dkim }
    }

    /// Adds to the evidence what was verified and is needed still.
    pub async fn add_verified(
        &self,
        again: &Again<'_>,
        verified: Verified,
        evidence: &mut Evidence,
        deadline: Instant,
    ) {
        let Verified { spf, others, dkim } = verified;
        if again.need(evidence) != Need::Nothing {
            let outcomes = spf.iter().chain(&others);
            let answered = outcomes.filter(|(_, spf)| spf.result != AuthResult::TempError);
            check_passes(evidence, &answered.collect::<Vec<_>>());
        }
        // Why again: DNS of the recipient's domain, or a pass that lets everybody in, may have
        // closed what was open, or opened what was closed.
        if again.need(evidence) != Need::Everything {
            return;
        }
        let original = &again.case.original;
        let dkim = match dkim {
            Some(dkim) => dkim,
            None => self.signatures(again.message, original, deadline).await,
        };
        evidence.gaps.extend(gaps(spf.as_ref(), &dkim));
        evidence.findings.extend(findings(original, spf.as_ref(), dkim));
    }

    /// What SPF says of the client at the border, where it is an outside host, and of this path.
    async fn client_spf(
        &self,
        original: &Original,
        path: Option<&ReversePath>,
        deadline: Instant,
    ) -> Option<(IpAddr, SpfOutcome)> {
        let line = original.border.as_ref()?.line().filter(|line| !line.is_private())?;
        let path = path.filter(|path| path.address().is_some())?;
        let outcome = timeout_at(deadline, self.facts.spf(line.ip, &line.helo, path)).await;
        let unanswered = || {
            let domain = path.address().and_then(Address::domain).map_or("", Domain::as_str);
            let identity = Identity { scope: SpfScope::MailFrom, local: "", domain };
            SpfOutcome::unanswered(&identity, LATE)
        };
        Some((line.ip, outcome.unwrap_or_else(|_| unanswered())))
    }

    /// What the signatures of the embedded message say.
    async fn signatures(
        &self,
        message: &Message,
        original: &Original,
        deadline: Instant,
    ) -> Signatures {
        let Some((bytes, extent)) = embedded(message, original) else { return Signatures::Missing };
        let then = came_in(original, self.now());
        let verifying = async {
            let prepared = match bytes.len() <= VERIFIED_INLINE_BYTES_MAX {
                true => Some(Prepared::read(&bytes, extent, then)),
                false => prepare_aside(bytes, extent, then).await,
            };
            match prepared {
                Some(prepared) => Signatures::Said(self.facts.dkim(prepared).await),
                None => Signatures::Late,
            }
        };
        timeout_at(deadline, verifying).await.unwrap_or(Signatures::Late)
    }
}

/// The subject message as it stands in the response, and how much of it; `None` when it is not
/// there as it was.
pub(in crate::guard) fn embedded(
    message: &Message,
    original: &Original,
) -> Option<(Bytes, Extent)> {
    let range = original.embedded.clone()?;
    let ends_early =
        message.completeness() == Completeness::Truncated && range.end >= message.bytes().len();
    let extent = match original.found_as {
        FoundAs::Rfc822 if !ends_early => Extent::Whole,
        FoundAs::Rfc822 | FoundAs::Rfc822Headers => Extent::Header,
        FoundAs::Text | FoundAs::Reference | FoundAs::None => return None,
    };
    Some((message.bytes().slice_ref(message.bytes().get(range)?), extent))
}

/// When the subject message came in, where our own lines say it; otherwise now. A signature that
/// had not expired then was good.
pub(in crate::guard) fn came_in(original: &Original, now: Timestamp) -> Timestamp {
    let ours = original.border.as_ref().is_some_and(|border| border.believed > 0);
    original.arrived.filter(|at| ours && *at < now).unwrap_or(now)
}

/// Why: hashing a large body takes longer than a task may keep its thread from others.
async fn prepare_aside(bytes: Bytes, extent: Extent, now: Timestamp) -> Option<Prepared> {
    tokio::task::spawn_blocking(move || Prepared::read(&bytes, extent, now)).await.ok()
}

fn need(envelope: &Envelope, evidence: &Evidence, policy: &Policy) -> Need {
    judged(envelope, policy).into_iter().fold(Need::Nothing, |need, (index, address)| {
        let known = evidence.recipients.get(index);
        let judged = weighed(&address, evidence, known, policy);
        match (need, judged.verdict) {
            (Need::Everything, _) => Need::Everything,
            (need, Verdict::Failed { .. }) if !judged.open => need,
            (_, Verdict::Authenticated { by: ProofKind::Spf | ProofKind::Dmarc, .. }) => {
                Need::Breadth
            }
            (need, Verdict::Authenticated { .. }) => need,
            _ => Need::Everything,
        }
    })
}

/// SPF passes of reverse-paths that our own lines report.
fn passes_of_ours(evidence: &Evidence) -> impl Iterator<Item = &SpfFinding> {
    let ours = evidence.findings.iter().filter(|findings| is_ours(findings));
    let passed = ours.flat_map(|findings| &findings.spf);
    passed.filter(|spf| spf.result == AuthResult::Pass && spf.scope == SpfScope::MailFrom)
}

fn is_ours(findings: &Findings) -> bool {
    matches!(findings.source, Source::AuthResults { .. })
}

/// Looks through what SPF passed, with what SPF says now: a pass that lets everybody in proves
/// nobody, whoever reported it; and one of which nobody can say whom it lets in proves its domain
/// at the most, so the address it was for is not believed. What DMARC passed by stands no better.
fn check_passes(evidence: &mut Evidence, answered: &[&(IpAddr, SpfOutcome)]) {
    let mut gaps = Vec::new();
    for findings in &mut evidence.findings {
        let is_ours = is_ours(findings);
        let passed = findings.spf.iter_mut().filter(|spf| spf.result == AuthResult::Pass);
        for spf in passed {
            let of = |spf: &SpfFinding| spf.domain.as_ref().map_or("", Domain::as_str).to_owned();
            match answered.iter().find(|(_, outcome)| outcome.domain == of(spf)) {
                Some((ip, outcome)) => {
                    spf.everybody = wide_term(*ip, outcome).or(spf.everybody.take());
                }
                None if is_ours => {
                    (spf.address, findings.mail_from) = (None, None);
                    let detail = format!("whom SPF of {} lets in was not checked", of(spf));
                    gaps.push(Gap::new(GapCause::NotEvaluated, &detail));
                }
                None => {}
            }
        }
        if is_ours {
            gaps.extend(check_dmarc(findings, answered));
        }
    }
    evidence.gaps.append(&mut gaps);
}

/// Takes away a DMARC pass that may rest on SPF alone, unless that is known to let few in.
fn check_dmarc(findings: &mut Findings, answered: &[&(IpAddr, SpfOutcome)]) -> Option<Gap> {
    let Findings { dmarc, dkim, .. } = findings;
    let passed = |dmarc: &&DmarcFinding| dmarc.result == AuthResult::Pass;
    let domain = dmarc.iter().find(passed)?.from_domain.clone()?;
    if is_signed_near(dkim, &domain) {
        return None;
    }
    let of = |outcome: &SpfOutcome| Domain::parse(&outcome.domain);
    let wide = |(ip, outcome): &&&(IpAddr, SpfOutcome)| {
        wide_term(*ip, outcome).is_some()
            && of(outcome).is_some_and(|other| is_near(&other, &domain))
    };
    if !answered.is_empty() && !answered.iter().any(|outcome| wide(&outcome)) {
        return None;
    }
    dmarc.retain(|dmarc| dmarc.result != AuthResult::Pass);
    let detail = format!("DMARC of {domain} may have passed by SPF that lets everybody in");
    Some(Gap::new(GapCause::NotEvaluated, &detail))
}

/// The term by which a pass lets everybody in.
fn wide_term(ip: IpAddr, outcome: &SpfOutcome) -> Option<String> {
    let is_wide = outcome.result == AuthResult::Pass && outcome.lets_everybody_in(ip);
    let term = outcome.matched.as_ref().map(|matched| matched.term.clone());
    is_wide.then(|| term.unwrap_or_default())
}

/// What was not looked at, or not in time.
fn gaps(spf: Option<&(IpAddr, SpfOutcome)>, dkim: &Signatures) -> Vec<Gap> {
    let mut gaps = Vec::new();
    if let Some((_, outcome)) = spf
        && outcome.result == AuthResult::TempError
    {
        let reason = outcome.reason.as_deref().unwrap_or_default();
        gaps.push(Gap::new(GapCause::Dns, &format!("SPF of {}: {reason}", outcome.domain)));
    }
    if let Signatures::Said(report) = dkim
        && report.signatures_left_out > 0
    {
        let detail = format!("{} signatures behind the first ones", report.signatures_left_out);
        gaps.push(Gap::new(GapCause::NotEvaluated, &detail));
    }
    gaps
}

fn findings(
    original: &Original,
    spf: Option<&(IpAddr, SpfOutcome)>,
    dkim: Signatures,
) -> Option<Findings> {
    let has_asked = !matches!(dkim, Signatures::Missing);
    if spf.is_none() && !has_asked {
        return None;
    }
    let path = original.return_path.as_ref();
    let spf: Vec<SpfFinding> =
        spf.iter().map(|(ip, outcome)| spf_finding(path, *ip, outcome)).collect();
    let (dkim, author_sign) = match dkim {
        Signatures::Missing => (Vec::new(), None),
        Signatures::Late => (vec![late()], None),
        Signatures::Said(report) => {
            let dkim = report.signatures.iter().map(DkimOutcome::finding).collect();
            (dkim, report.author.sign)
        }
    };
    Some(Findings {
        mail_from: original.return_path.clone(),
        from: original.from.clone(),
        sender: original.sender.clone(),
        evaluated: Evaluated { spf: !spf.is_empty(), dkim: has_asked, dmarc: false },
        spf,
        dkim,
        author_sign,
        ..Findings::of(Source::Reverified)
    })
}

/// Stands for all signatures: any of them may have been good.
fn late() -> DkimFinding {
    DkimFinding { reason: Some(LATE.to_owned()), ..DkimFinding::of(AuthResult::TempError, None) }
}

/// What SPF says of a client and a reverse-path, as a finding.
pub fn spf_finding(path: Option<&ReversePath>, ip: IpAddr, outcome: &SpfOutcome) -> SpfFinding {
    let address = path.and_then(ReversePath::address);
    SpfFinding {
        scope: outcome.scope,
        address: address.filter(|_| outcome.scope == SpfScope::MailFrom).cloned(),
        everybody: wide_term(ip, outcome),
        guessed: outcome.is_guessed,
        ..SpfFinding::of(outcome.result, Domain::parse(&outcome.domain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::border::{Border, End};

    #[test]
    fn a_signature_is_as_old_as_it_was_when_the_message_came_in() {
        let at = Timestamp::from_millis;
        let (now, original) = (at(1000), |believed, arrived| Original {
            border: Some(Border { believed, relay: None, end: End::Unsaid }),
            arrived,
            ..Original::default()
        });
        for (original, expected) in [
            (original(1, Some(at(900))), 900),
            (original(1, Some(at(1100))), 1000),
            (original(1, None), 1000),
            // What a peer says of the time.
            (original(0, Some(at(900))), 1000),
            (Original { arrived: Some(at(900)), ..Original::default() }, 1000),
        ] {
            assert_eq!(came_in(&original, now), at(expected));
        }
    }
}
