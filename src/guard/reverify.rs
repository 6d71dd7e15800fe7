//! Station 4, the part that verifies anew what a response embeds.
//!
//! Takes: the response and its case. Gives: `Findings` of our own: SPF of the client that our border
//! line names, for the reverse-path that our system wrote down; the signatures of the embedded
//! message. A tap's record or our own Authentication-Results come before them: they were made when
//! the message came in, and a key or record may be gone by now.
//! Bounds: `auth`'s deadlines; nothing is asked when what is known decides already.
//! Standards: RFC 7208, RFC 6376.

use std::net::IpAddr;

use crate::auth::dkim::{DkimReport, Extent, Prepared};
use crate::auth::spf::SpfOutcome;
use crate::guard::inquiry::Inquiry;
use crate::judge::Case;
use crate::judge::classify::{Class, Guarded};
use crate::judge::decision::{ProofKind, Verdict};
use crate::judge::evidence::{
    AuthResult, Evaluated, Evidence, Findings, Gap, GapCause, Source, SpfFinding, SpfScope,
};
use crate::judge::original::{FoundAs, Origin, Original};
use crate::judge::policy::Policy;
use crate::judge::rewritten::foreign_original;
use crate::judge::verdict::verdict;
use crate::mail::address::{Domain, ReversePath};
use crate::mail::envelope::Envelope;
use crate::mail::header::Completeness;
use crate::mail::limits::VERIFIED_INLINE_BYTES_MAX;
use crate::mail::message::Message;
use crate::mail::time::Timestamp;

/// What the findings so far leave open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Every recipient is proven or failed.
    Nothing,
    /// A recipient is proven by an SPF pass, which may let everybody in.
    Breadth,
    /// A recipient is neither proven nor failed.
    Everything,
}

impl Inquiry {
    /// Verifies anew what is still open for a recipient; adds to the evidence.
    pub async fn reverify(
        &self,
        envelope: &Envelope,
        message: &Message,
        case: &Case,
        policy: &Policy,
        evidence: &mut Evidence,
    ) {
        let is_report = matches!(case.class, Class::Dsn(_) | Class::Mdn);
        let ours = case.origin != Some(Origin::Relayed);
        let placed_by_us = case.original.border.is_some();
        if case.class.guarded() != Guarded::Response || !(is_report && ours && placed_by_us) {
            return;
        }
        let mut need = need(envelope, evidence, policy);
        if need == Need::Nothing {
            return;
        }
        let client = client_of(&case.original);
        let spf = match client {
            Some((ip, helo, path)) => Some((ip, self.facts.spf(ip, helo, path).await)),
            None => None,
        };
        if let Some((ip, outcome)) = &spf
            && outcome.lets_everybody_in(*ip)
        {
            mark_everybody(evidence, outcome);
            need = self::need(envelope, evidence, policy);
        }
        if need != Need::Everything {
            return;
        }
        let dkim = self.signatures(message, &case.original).await;
        if let Some(left_out @ 1..) = dkim.as_ref().map(|report| report.signatures_left_out) {
            let detail = format!("{left_out} signatures behind the first ones");
            evidence.gaps.push(Gap::new(GapCause::NotEvaluated, &detail));
        }
        evidence.findings.extend(findings(&case.original, spf.as_ref(), dkim));
    }

    /// What the signatures of the embedded message say; `None` when it is not there as it was.
    async fn signatures(&self, message: &Message, original: &Original) -> Option<DkimReport> {
        let range = original.embedded.clone()?;
        let ends_early =
            message.completeness() == Completeness::Truncated && range.end >= message.bytes().len();
        let extent = match original.found_as {
            FoundAs::Rfc822 if !ends_early => Extent::Whole,
            FoundAs::Rfc822 | FoundAs::Rfc822Headers => Extent::Header,
            FoundAs::Text | FoundAs::Reference | FoundAs::None => return None,
        };
        let bytes = message.bytes().slice_ref(message.bytes().get(range)?);
        let then = came_in(original, self.now());
        let prepared = match bytes.len() <= VERIFIED_INLINE_BYTES_MAX {
            true => Prepared::read(&bytes, extent, then),
            false => prepare_aside(bytes, extent, then).await?,
        };
        Some(self.facts.dkim(prepared).await)
    }
}

/// When the subject message came in, where our own lines say it; otherwise now. A signature that
/// had not expired then was good.
fn came_in(original: &Original, now: Timestamp) -> Timestamp {
    let ours = original.border.as_ref().is_some_and(|border| border.believed > 0);
    original.arrived.filter(|at| ours && *at < now).unwrap_or(now)
}

/// Why: hashing a large body takes longer than a task may keep its thread from others.
async fn prepare_aside(bytes: bytes::Bytes, extent: Extent, now: Timestamp) -> Option<Prepared> {
    tokio::task::spawn_blocking(move || Prepared::read(&bytes, extent, now)).await.ok()
}

fn need(envelope: &Envelope, evidence: &Evidence, policy: &Policy) -> Need {
    let recipients = envelope.recipients.iter().filter_map(|recipient| recipient.path.address());
    let judged = recipients.filter_map(|address| match foreign_original(address, &policy.site) {
        Some(original) => Some(original),
        None => (!policy.site.is_local(address)).then(|| address.clone()),
    });
    judged.fold(Need::Nothing, |need, address| {
        match (need, verdict(&address, evidence, policy).verdict) {
            (Need::Everything, _) => Need::Everything,
            (need, Verdict::Failed { .. }) => need,
            (_, Verdict::Authenticated { by: ProofKind::Spf, .. }) => Need::Breadth,
            (need, Verdict::Authenticated { .. }) => need,
            _ => Need::Everything,
        }
    })
}

/// The client at the border and what it said, where it is an outside host.
fn client_of(original: &Original) -> Option<(IpAddr, &str, &ReversePath)> {
    let line = original.border.as_ref()?.line().filter(|line| !line.is_private())?;
    let path = original.return_path.as_ref().filter(|path| path.address().is_some())?;
    Some((line.ip, &line.helo, path))
}

/// A pass that lets everybody in proves nobody, whoever reported it.
fn mark_everybody(evidence: &mut Evidence, outcome: &SpfOutcome) {
    let Some(domain) = Domain::parse(&outcome.domain) else { return };
    let term = outcome.matched.as_ref().map(|matched| matched.term.clone()).unwrap_or_default();
    let passes = evidence.findings.iter_mut().flat_map(|findings| findings.spf.iter_mut());
    for spf in passes.filter(|spf| spf.result == AuthResult::Pass) {
        if spf.domain.as_ref() == Some(&domain) {
            spf.everybody = Some(term.clone());
        }
    }
}

fn findings(
    original: &Original,
    spf: Option<&(IpAddr, SpfOutcome)>,
    dkim: Option<DkimReport>,
) -> Option<Findings> {
    if spf.is_none() && dkim.is_none() {
        return None;
    }
    let spf: Vec<SpfFinding> =
        spf.iter().map(|(ip, outcome)| spf_finding(original, *ip, outcome)).collect();
    let has_asked = dkim.is_some();
    let author_sign = dkim.as_ref().and_then(|report| report.author.sign);
    let dkim = dkim.map(|report| report.signatures).unwrap_or_default();
    Some(Findings {
        source: Source::Reverified,
        mail_from: original.return_path.clone(),
        from: original.from.clone(),
        sender: original.sender.clone(),
        evaluated: Evaluated { spf: !spf.is_empty(), dkim: has_asked, dmarc: false },
        spf,
        dkim: dkim.iter().map(|outcome| outcome.finding()).collect(),
        dmarc: Vec::new(),
        own_submission: None,
        author_sign,
    })
}

fn spf_finding(original: &Original, ip: IpAddr, outcome: &SpfOutcome) -> SpfFinding {
    let everybody = outcome.result == AuthResult::Pass && outcome.lets_everybody_in(ip);
    let term = outcome.matched.as_ref().map(|matched| matched.term.clone());
    let address = original.return_path.as_ref().and_then(ReversePath::address);
    SpfFinding {
        result: outcome.result,
        scope: outcome.scope,
        domain: Domain::parse(&outcome.domain),
        address: address.filter(|_| outcome.scope == SpfScope::MailFrom).cloned(),
        everybody: term.filter(|_| everybody),
        guessed: outcome.is_guessed,
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
