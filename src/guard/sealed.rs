//! Station 4, the part about mail that came through a forwarder or a list: what its host found out
//! when the mail came to it, and sealed.
//!
//! Takes: the response and its case. Gives: `Findings` of the sealers that the configuration names.
//! They come before all others and can only prove: SPF of a forwarder's address fails by design,
//! and that is what they are for.
//! Bounds: the deadline of the whole evidence; nothing is asked when the last sealer is not named,
//! or when every recipient is proven already.
//! Standards: RFC 8617.

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use crate::auth::arc::{ArcReport, Prepared};
use crate::guard::evidence::LATE;
use crate::guard::inquiry::Inquiry;
use crate::guard::reverify::{Again, came_in};
use crate::judge::Case;
use crate::judge::classify::{Class, Guarded};
use crate::judge::decision::{Scope, Verdict};
use crate::judge::evidence::{AuthResult, Evidence, Gap, GapCause};
use crate::judge::findings::{Identities, sealed};
use crate::judge::original::{FoundAs, Origin};
use crate::judge::policy::Policy;
use crate::judge::rewritten::foreign_original;
use crate::judge::verdict::verdict;
use crate::mail::envelope::Envelope;
use crate::mail::header::Completeness;
use crate::mail::limits::VERIFIED_INLINE_BYTES_MAX;
use crate::mail::message::Message;
use crate::mail::time::Timestamp;

impl Inquiry {
    /// Reads the seals of the embedded message where they could prove a recipient; adds to the
    /// evidence.
    pub async fn read_seals(&self, again: &Again<'_>, evidence: &mut Evidence, deadline: Instant) {
        let Again { envelope, message, case, policy } = *again;
        let is_report = matches!(case.class, Class::Dsn(_) | Class::Mdn);
        let ours = case.origin != Some(Origin::Relayed);
        if case.class.guarded() != Guarded::Response || !is_report || !ours {
            return;
        }
        if policy.arc_sealers.is_empty() || is_proven(envelope, evidence, policy) {
            return;
        }
        let Some(embedded) = whole_embedded(message, case) else { return };
        let original = &case.original;
        let then = came_in(original, self.now());
        let asking = self.seals(embedded, then, policy);
        let report = match timeout_at(deadline, asking).await {
            Ok(Some(report)) => report,
            Ok(None) => return,
            Err(_elapsed) => return evidence.gaps.push(Gap::new(GapCause::Dns, LATE)),
        };
        if report.result == AuthResult::TempError {
            evidence.gaps.push(Gap::new(GapCause::Dns, &report.reason));
        }
        let findings = report.believed(&policy.arc_sealers).iter().filter_map(|set| {
            let identities = Identities {
                mail_from: None,
                from: original.from.clone(),
                sender: original.sender.clone(),
                author_sign: report.author_sign,
            };
            Some(sealed(set.results.as_ref()?, &set.sealer, identities))
        });
        let findings: Vec<_> = findings.collect();
        evidence.findings.splice(..0, findings);
    }

    /// What the chain says; `None` when the last sealer is nobody we know.
    pub async fn seals(
        &self,
        embedded: Bytes,
        then: Timestamp,
        policy: &Policy,
    ) -> Option<ArcReport> {
        let prepared = match embedded.len() <= VERIFIED_INLINE_BYTES_MAX {
            true => Prepared::read(&embedded, then),
            // Why: hashing a large body takes longer than a task may keep its thread from others.
            false => {
                let aside = move || Prepared::read(&embedded, then);
                tokio::task::spawn_blocking(aside).await.ok()?
            }
        };
        match prepared.is_sealed_by(&policy.arc_sealers) {
            true => Some(self.facts.arc(prepared).await),
            false => None,
        }
    }
}

/// The embedded message as it came in, with all of its body: only then can its last signature hold.
fn whole_embedded(message: &Message, case: &Case) -> Option<Bytes> {
    let range = case.original.embedded.clone()?;
    let ends_early =
        message.completeness() == Completeness::Truncated && range.end >= message.bytes().len();
    let is_whole = case.original.found_as == FoundAs::Rfc822 && !ends_early;
    let bytes = message.bytes().get(range).filter(|_| is_whole)?;
    Some(message.bytes().slice_ref(bytes))
}

/// Whether nothing more can be proven of any recipient.
fn is_proven(envelope: &Envelope, evidence: &Evidence, policy: &Policy) -> bool {
    let recipients = envelope.recipients.iter().filter_map(|recipient| recipient.path.address());
    let mut judged =
        recipients.filter_map(|address| match foreign_original(address, &policy.site) {
            Some(original) => Some(original),
            None => (!policy.site.is_local(address)).then(|| address.clone()),
        });
    judged.all(|address| {
        let verdict = verdict(&address, evidence, policy).verdict;
        matches!(verdict, Verdict::Authenticated { scope: Scope::Address, .. })
    })
}
