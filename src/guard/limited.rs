//! Stations 4 and 7: how many limited responses went to whom, and what of the limits is used up.
//!
//! Takes: a case and its recipients. Gives: the counts that `decide` sees, then `Decided`: what it
//! says, with the room it takes reserved. Looking counts nothing: only what a limit let out does.
//! Bounds: `limits::FAILED_RECIPIENTS_COUNTED_MAX` keys of one report.

use crate::guard::evidence::Gathered;
use crate::guard::inquiry::Inquiry;
use crate::judge::Case;
use crate::judge::classify::Class;
use crate::judge::decide::decide;
use crate::judge::decision::{Decision, Reason};
use crate::judge::evidence::SentBefore;
use crate::judge::original::{Key as SubjectKey, NamedBy};
use crate::judge::policy::Policy;
use crate::judge::rewritten::{foreign_original, is_srs, is_unreadable, without_tags};
use crate::judge::site::Site;
use crate::mail::address::{Address, Domain, ForwardPath};
use crate::mail::envelope::Envelope;
use crate::mail::limits::FAILED_RECIPIENTS_COUNTED_MAX;
use crate::mail::time::Timestamp;
use crate::store::answers::{Key, Reserved};

/// What a response to one recipient is counted under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The recipient first; then the pairs, of a DSN one for each failed recipient.
    keys: Vec<Key>,
}

impl Counted {
    /// What this decision uses up. Why not the pairs of one whom a signature proves: he may get many
    /// answers about one thing, and only their sum shows that his message is sent again and again.
    fn used_up_by(&self, decision: &Decision) -> Vec<Key> {
        let used_up = match decision.reason {
            Reason::Authenticated => 1,
            _ => self.keys.len(),
        };
        self.keys.iter().take(used_up).copied().collect()
    }

    /// The counts of its keys as the judge sees them. Of several pairs the one used most counts:
    /// a report must not go out because a new recipient was mixed with an old one.
    fn sent_before(counts: &[u32]) -> SentBefore {
        match counts.split_first() {
            Some((recipient, pairs)) => SentBefore {
                pair: pairs.iter().copied().max().unwrap_or_default(),
                recipient: *recipient,
            },
            None => SentBefore::default(),
        }
    }
}

/// What was decided, and what it uses up.
pub struct Decided {
    /// One for each recipient, in envelope order.
    pub decisions: Vec<Decision>,
    /// Counts in flight of those that a limit let out: for which recipient, and what.
    pub reserved: Vec<(usize, Reserved)>,
}

impl Inquiry {
    /// What a response to this recipient is counted under, at each of our listeners on its own: a
    /// scanner may hand it from one to the other, and it is one response.
    pub(in crate::guard) fn counted(
        &self,
        case: &Case,
        recipient: &ForwardPath,
        listener: usize,
        site: &Site,
    ) -> Counted {
        let to = match recipient.address() {
            Some(address) => counted_for(address, site),
            None => recipient.canonical(),
        };
        let kind = match case.class {
            Class::AutoReply | Class::Challenge => "auto-reply",
            Class::Dsn(action) => action.as_str(),
            other => other.as_str(),
        };
        let (at, pairs) = (listener.to_string(), about(case));
        let pairs = pairs.iter().map(|about| self.answers.key(&["pair", &at, kind, about, &to]));
        let recipient = self.answers.key(&["to", &at, kind, &to]);
        Counted { keys: std::iter::once(recipient).chain(pairs).collect() }
    }

    /// How many went out before, those on their way included.
    pub(in crate::guard) fn sent_before(&self, counted: &Counted) -> SentBefore {
        Counted::sent_before(&self.answers.before(&counted.keys, self.now()))
    }

    /// Decides, and reserves what the decisions use up.
    ///
    /// Why a second time: between looking and reserving another message may have taken the room.
    /// Counts in flight only make a limit nearer, so what is decided then can be kept.
    pub fn decide(
        &self,
        envelope: &Envelope,
        case: &Case,
        gathered: &mut Gathered,
        policy: &Policy,
        now: Timestamp,
    ) -> Decided {
        let mut decisions = decide(envelope, case, &gathered.evidence, policy, now);
        let mut reserved = Vec::new();
        let mut is_nearer = false;
        let counting = decisions.iter().zip(&gathered.counted).enumerate();
        for (index, (decision, counted)) in counting.filter(|(_, (decision, _))| decision.counts) {
            let (reservation, counts) = self.answers.reserve(counted.used_up_by(decision), now);
            reserved.push((index, reservation));
            let Some(known) = gathered.evidence.recipients.get_mut(index) else { continue };
            let mut sent = Counted::sent_before(&counts);
            if let (Reason::Authenticated, Ok(looked)) = (decision.reason, &known.sent_before) {
                sent.pair = looked.pair;
            }
            let sent = Ok(sent);
            is_nearer |= known.sent_before != sent;
            known.sent_before = sent;
        }
        if is_nearer {
            decisions = decide(envelope, case, &gathered.evidence, policy, now);
            reserved.retain(|(index, _)| decisions.get(*index).is_some_and(|it| it.counts));
        }
        Decided { decisions, reserved }
    }
}

/// Whose mailbox an answer is counted for.
///
/// Why the original: each copy of an SRS address has another tag, and all stand for one mailbox.
/// Whom one stands for that cannot be read nobody can say, and whoever forges chooses its tags; so
/// all of a domain count as one. The name cannot be a mailbox's, which is in lower case.
fn counted_for(address: &Address, site: &Site) -> String {
    match foreign_original(address, site) {
        Some(original) => counted_as(&original),
        None if is_unreadable(address, site) => {
            format!("SRS@{}", address.domain().map(Domain::as_str).unwrap_or_default())
        }
        None => counted_as(address),
    }
}

/// The mailbox that an address is counted for: `joe@bank.example` for `Joe+news@bank.example`.
///
/// Why: whoever forges chooses the detail, and all of them reach joe (RFC 5233 §1). That a host may
/// mean something else by `+` costs a response at most; nobody is judged by it.
fn counted_as(address: &Address) -> String {
    match is_srs(address.local()) {
        // Why: behind `SRS0+` somebody else's address stands, and no detail; and before it tags,
        // which whoever forges chooses too.
        true => without_tags(address).unwrap_or_else(|| address.canonical()),
        false => address.canonical_without_detail(),
    }
}

/// What the response is about, or who answers: the other end of each pair.
fn about(case: &Case) -> Vec<String> {
    let about = match case.class {
        Class::Dsn(_) => {
            let failed = case.original.failed_recipients.iter().map(counted_as);
            failed.take(FAILED_RECIPIENTS_COUNTED_MAX).collect()
        }
        Class::Mdn => about_message(case).into_iter().collect(),
        _ => Vec::new(),
    };
    match about.is_empty() {
        true => vec![case.responder.as_ref().map(counted_as).unwrap_or_default()],
        false => about,
    }
}

/// The message an MDN is about.
fn about_message(case: &Case) -> Option<String> {
    case.original.keys.iter().find_map(|key| match key {
        SubjectKey::MessageId { id, named_by: NamedBy::OriginalMessageId } => Some(id.clone()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subaddress_makes_no_other_mailbox() {
        for (text, expected) in [
            ("Joe+1@Bank.example", "joe@bank.example"),
            ("joe+a+b@bank.example", "joe@bank.example"),
            ("\"joe+a@b\"@bank.example", "joe@bank.example"),
            ("joe@bank.example", "joe@bank.example"),
            ("+1@bank.example", "+1@bank.example"),
            ("SRS0+ab=cd=A.example=Joe@fwd.example", "srs=joe@a.example@fwd.example"),
            ("SRS0=xy=zz=a.example=joe@fwd.example", "srs=joe@a.example@fwd.example"),
            (
                "SRS1=ab=one.example==cd=XY=a.example=joe@fwd.example",
                "srs=joe@a.example@fwd.example",
            ),
            ("SRS0=xy=zz@fwd.example", "srs0=xy=zz@fwd.example"),
        ] {
            assert_eq!(counted_as(&Address::parse(text).unwrap()), expected, "{text}");
        }
    }
}
