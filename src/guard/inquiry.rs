//! Stations 3 to 7: everything up to the decision, without its consequences.
//!
//! Takes: envelope and message. Gives: what `decide` is given, and its decisions. `explain` is this
//! and nothing more, so it says what the daemon would do.

use std::borrow::Cow;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::guard::clock::Clock;
use crate::guard::evidence::Facts;
use crate::guard::loops::{LoopMemory, site_of};
use crate::judge::decide::decide;
use crate::judge::decision::{Decision, Verdict, VerdictKind};
use crate::judge::evidence::Evidence;
use crate::judge::fingerprint::{Campaign, FingerprintKey};
use crate::judge::policy::Policy;
use crate::judge::trace::TraceKey;
use crate::judge::{Case, Keys, read};
use crate::mail::envelope::Envelope;
use crate::mail::message::Message;
use crate::mail::time::Timestamp;
use crate::store::Store;
use crate::store::answers::Answers;

/// What judging needs beside the message.
pub struct Inquiry {
    /// Who answers questions about domains.
    pub facts: Arc<dyn Facts>,
    /// What came in.
    pub store: Arc<dyn Store>,
    /// Whether a tap watches what comes in.
    pub is_tapped: bool,
    /// How many limited responses went out.
    pub answers: Arc<Answers>,
    /// What is remembered of messages that may go round.
    pub loops: LoopMemory,
    /// The time.
    pub clock: Clock,
    /// Whose traces count as ours at the first listener.
    pub loop_site: String,
    /// The key of our traces.
    pub trace_key: TraceKey,
    /// The key of fingerprints.
    pub fingerprint_key: FingerprintKey,
    /// The rules.
    pub policy: ArcSwap<InForce>,
}

/// The policy in force, with the hash that records name it by.
#[derive(Clone, Debug)]
pub struct InForce {
    /// The rules.
    pub policy: Policy,
    /// 16 hexadecimal digits over everything in it.
    pub hash: String,
}

impl InForce {
    /// The policy with its hash.
    pub fn new(policy: Policy) -> InForce {
        let hash = blake3::hash(policy.in_order().as_bytes()).to_hex();
        InForce { policy, hash: hash.chars().take(16).collect() }
    }
}

/// A decision without its consequences.
#[derive(Clone, Debug)]
pub struct Explained {
    /// What the message says about itself.
    pub case: Case,
    /// What is known beside it.
    pub evidence: Evidence,
    /// One for each recipient.
    pub decisions: Vec<Decision>,
}

impl Inquiry {
    /// What the message says about itself.
    pub fn read(&self, envelope: &Envelope, message: &Message, policy: &Policy) -> Case {
        let keys = Keys {
            fingerprint: &self.fingerprint_key,
            trace: &self.trace_key,
            loop_site: &self.site_of(envelope),
        };
        read(envelope, message, &policy.site, &keys)
    }

    /// The run that a response belongs to which answers forged mail; `None` for any other.
    pub fn campaign(
        &self,
        envelope: &Envelope,
        message: &Message,
        case: &Case,
        decisions: &[Decision],
    ) -> Option<Campaign> {
        let failed = |verdict: &Verdict| verdict.kind() == VerdictKind::Failed;
        let is_failed = |decision: &Decision| decision.verdict.as_ref().is_some_and(failed);
        let is_wanted = decisions.iter().any(is_failed);
        let key = &self.fingerprint_key;
        is_wanted.then(|| Campaign::of_response(envelope.reverse_path(), message, case, key))?
    }

    /// Whose traces count as ours for what came by this listener.
    pub fn site_of(&self, envelope: &Envelope) -> Cow<'_, str> {
        site_of(&self.loop_site, envelope.client.listener)
    }

    /// The decision without its consequences: nothing is held, relayed, recorded or remembered.
    pub async fn explain(&self, envelope: &Envelope, message: &Message) -> Explained {
        let in_force = self.in_force();
        let policy = &in_force.policy;
        let mut case = self.read(envelope, message, policy);
        self.recognise(envelope, &mut case, policy).await;
        let evidence = self.gather(envelope, message, &case, policy).await.evidence;
        let decisions = decide(envelope, &case, &evidence, policy, self.now());
        Explained { case, evidence, decisions }
    }

    /// The policy in force.
    pub fn in_force(&self) -> Arc<InForce> {
        self.policy.load_full()
    }

    /// Puts another policy in force; messages on their way keep the one they began with.
    pub fn replace_policy(&self, policy: Policy) {
        self.policy.store(Arc::new(InForce::new(policy)));
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
