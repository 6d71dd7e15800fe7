//! Station 4, the part that counts how many got one signature.
//!
//! Takes: the response, and the findings so far. Gives: in each DKIM pass for how many recipients
//! messages with its signature came in without an SPF pass of its domain, as far as the taps saw.
//! Why: a signature says who signed, and not to whom; who holds one signed message can send it to
//! all our users, with its author for the reverse-path (RFC 6376 §8.6). What that means is for the
//! judge to say. A failure of the memory becomes a `Gap`.
//! Bounds: `limits_of_memory::SIGNATURES_COUNTED_MAX` signatures, one round trip of
//! `RECALL_DEADLINE`.

use std::collections::{BTreeMap, BTreeSet};

use crate::auth::dkim::{Extent, Prepared};
use crate::guard::inquiry::Inquiry;
use crate::guard::reverify::{Again, embedded};
use crate::judge::correlation::Recalled;
use crate::judge::evidence::{
    AuthResult, DkimFinding, Evidence, Findings, RecipientEvidence, SignatureId, Source,
};
use crate::judge::subject::LookUp;
use crate::mail::address::{Address, Domain};
use crate::mail::limits::RECALLED_MAX;
use crate::mail::limits_of_memory::SIGNATURES_COUNTED_MAX;

/// The signatures that stand in an embedded message, each with its domain.
type Embedded = Vec<(Domain, SignatureId)>;

impl Inquiry {
    /// Counts whom each signature that passed was sent to.
    pub async fn count_signatures(&self, again: &Again<'_>, evidence: &mut Evidence) {
        // Why nothing without a tap: nobody saw them come in. The limit of what a signature alone
        // proves still holds.
        if !self.is_tapped || !passes(evidence).any(|_| true) {
            return;
        }
        let embedded = match findings(evidence).any(is_silent) {
            true => self.embedded_signatures(again),
            false => Embedded::new(),
        };
        let mut asked = BTreeSet::new();
        for (source, dkim) in passes(evidence) {
            asked.extend(signatures(source, dkim, &embedded));
        }
        let asked: Vec<SignatureId> = asked.into_iter().take(SIGNATURES_COUNTED_MAX).collect();
        let look_ups = asked.iter().map(|id| LookUp::signature(*id)).collect();
        let counts = match self.ask_store(look_ups, again.case, self.now()).await {
            Ok(recalled) => asked.iter().map(|id| (*id, sent_to(*id, &recalled))).collect(),
            Err(gap) => return evidence.gaps.push(gap),
        };
        let recorded = evidence.recipients.iter_mut().flat_map(recorded_mut);
        evidence
            .findings
            .iter_mut()
            .chain(recorded)
            .for_each(|found| note(found, &embedded, &counts));
    }

    /// Which signatures the embedded message bears.
    fn embedded_signatures(&self, again: &Again<'_>) -> Embedded {
        let Some((bytes, _)) = embedded(again.message, &again.case.original) else {
            return Embedded::new();
        };
        let prepared = Prepared::read(&bytes, Extent::Header, self.now());
        prepared.signatures().map(|(domain, id)| (domain.clone(), id)).collect()
    }
}

/// Whether a source tells of signatures by their domain alone.
fn is_silent(findings: &Findings) -> bool {
    matches!(findings.source, Source::AuthResults { .. })
}

/// Which signatures a pass may be about. An Authentication-Results line names no more than the
/// domain: then all of that domain in the message it is about.
fn signatures(source: &Source, dkim: &DkimFinding, embedded: &Embedded) -> Vec<SignatureId> {
    match (dkim.signature, source) {
        (Some(id), _) => vec![id],
        (None, Source::AuthResults { .. }) => {
            let same = embedded.iter().filter(|(domain, _)| dkim.domain.as_ref() == Some(domain));
            same.map(|(_, id)| *id).collect()
        }
        _ => Vec::new(),
    }
}

fn note(findings: &mut Findings, embedded: &Embedded, counts: &BTreeMap<SignatureId, u32>) {
    let Findings { source, dkim, .. } = findings;
    for dkim in dkim.iter_mut().filter(|dkim| dkim.result == AuthResult::Pass) {
        let about = signatures(source, dkim, embedded);
        let counted = about.iter().filter_map(|id| Some((*counts.get(id)?, *id)));
        if let Some((recipients, id)) = counted.max() {
            (dkim.recipients, dkim.signature) = (recipients, Some(id));
        }
    }
}

/// How many mailboxes got a signature. Where there are more records than a store gives, each of
/// them counts: or whoever replays it would only have to send the last ones to one mailbox.
fn sent_to(id: SignatureId, recalled: &[Recalled]) -> u32 {
    let name = LookUp::signature(id);
    let records = recalled.iter().map(|found| &found.record);
    let records: Vec<_> = records.filter(|record| record.look_ups().contains(&name)).collect();
    let mailboxes = records
        .iter()
        .flat_map(|record| record.recipients.iter().map(Address::canonical_without_detail));
    let mailboxes = mailboxes.collect::<BTreeSet<_>>().len();
    let least = if records.len() >= RECALLED_MAX { records.len() } else { 0 };
    u32::try_from(mailboxes.max(least)).unwrap_or(u32::MAX)
}

fn findings(evidence: &Evidence) -> impl Iterator<Item = &Findings> {
    let answered = evidence.recipients.iter().filter_map(|known| known.answered.as_ref());
    let recorded = answered.flat_map(|answered| &answered.subjects);
    evidence.findings.iter().chain(recorded.flat_map(|subject| &subject.findings))
}

fn passes(evidence: &Evidence) -> impl Iterator<Item = (&Source, &DkimFinding)> {
    findings(evidence).flat_map(|findings| {
        let passed = findings.dkim.iter().filter(|dkim| dkim.result == AuthResult::Pass);
        passed.map(|dkim| (&findings.source, dkim))
    })
}

fn recorded_mut(known: &mut RecipientEvidence) -> impl Iterator<Item = &mut Findings> {
    let subjects = known.answered.iter_mut().flat_map(|answered| &mut answered.subjects);
    subjects.flat_map(|subject| &mut subject.findings)
}
