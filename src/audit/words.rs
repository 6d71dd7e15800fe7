//! The closed lists of words in a record: from value to word and back.
//!
//! A list that lacks a value of its type does not compile, so no value is without a word.

use crate::judge::classify::{Class, DsnAction};
use crate::judge::correlation::{MatchedBy, Standing};
use crate::judge::decision::{Action, LoopKind, VerdictKind};
use crate::judge::evidence::{Alignment, AuthResult, DmarcPolicy, GapCause, Receives, SpfScope};
use crate::judge::original::{FoundAs, NamedBy, Origin};
use crate::judge::subject::TapKind;
use crate::mail::author::AuthorSign;
use crate::mail::shown::Shown;

/// A closed list: each value of a type, and the word for it.
#[derive(Debug)]
pub struct Words<T: 'static> {
    all: &'static [T],
    word: fn(T) -> &'static str,
}

impl<T: Copy> Words<T> {
    /// The word of a value.
    pub fn word(&self, value: T) -> &'static str {
        (self.word)(value)
    }

    /// All words, in the order of the list.
    pub fn words(&self) -> impl Iterator<Item = &'static str> {
        self.all.iter().map(|value| (self.word)(*value))
    }

    /// The value of a word, in its letter case; `None` for any other text.
    pub fn find(&self, word: &str) -> Option<T> {
        self.all.iter().copied().find(|value| (self.word)(*value) == word)
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident: $type:ident, $word:expr, [$($value:ident),*]) => {
        $(#[$doc])*
        pub const $name: Words<$type> = Words { all: &[$($type::$value),*], word: $word };
        const _: fn($type) = |value| match value { $($type::$value => ()),* };
    };
}

words!(
    /// Actions of a DSN.
    DSN_ACTIONS: DsnAction, DsnAction::as_str, [Failed, Delayed, Delivered, Relayed, Expanded]
);
words!(
    /// Whose response it is.
    ORIGINS: Origin, Origin::as_str, [Ours, Relayed]
);
words!(
    /// In which form the subject message was found.
    FOUND_AS: FoundAs, FoundAs::as_str, [Rfc822, Rfc822Headers, Text, Reference, None]
);
words!(
    /// Verdicts.
    VERDICTS: VerdictKind, VerdictKind::as_str,
    [Authenticated, Failed, Unauthenticated, Unresolved, Unknown]
);
words!(
    /// Actions.
    ACTIONS: Action, Action::as_str, [Deliver, Quarantine, Reject, Discard, Defer]
);
words!(
    /// How a loop was recognised.
    LOOP_KINDS: LoopKind, LoopKind::as_str,
    [Lap, Progression, Hops, Conversation, ForwardedBounce, Misrouting]
);
words!(
    /// Why something is not known.
    GAP_CAUSES: GapCause, GapCause::as_str,
    [
        NoTap, NotInStore, Pending, NoKey, BehindRelay, Truncated, NoAuthResults, NotStripped,
        NotEvaluated, Dns, Store
    ]
);
words!(
    /// Results, in the words of RFC 8601 §2.7.
    AUTH_RESULTS: AuthResult, AuthResult::as_str,
    [Pass, Fail, SoftFail, Neutral, None, TempError, PermError, Policy]
);
words!(
    /// Which identity an SPF result is about.
    SPF_SCOPES: SpfScope,
    |scope| match scope {
        SpfScope::MailFrom => "mailfrom",
        SpfScope::Helo => "helo",
        SpfScope::Unnamed => "unnamed",
    },
    [MailFrom, Helo, Unnamed]
);
words!(
    /// The field that named a Message-ID.
    NAMED_BY: NamedBy,
    |field| match field {
        NamedBy::EmbeddedHeader => "embedded-header",
        NamedBy::OriginalMessageId => "original-message-id",
        NamedBy::InReplyTo => "in-reply-to",
        NamedBy::ExchangeParent => "exchange-parent",
        NamedBy::References => "references",
        NamedBy::Text => "text",
    },
    [EmbeddedHeader, OriginalMessageId, InReplyTo, ExchangeParent, References, Text]
);
words!(
    /// By which kind of name a record was found.
    MATCHED_BY: MatchedBy, MatchedBy::as_str, [QueueId, MessageId, EnvelopeId, Pair]
);
words!(
    /// What a recipient is to the message.
    STANDINGS: Standing, Standing::as_str, [ReplyTarget, Stranger]
);
words!(
    /// Which kind of tap saw a message.
    TAPS: TapKind, TapKind::as_str, [Milter, Smtp, Http]
);
words!(
    /// Whether a domain can receive mail.
    RECEIVES: Receives,
    |fact| match fact {
        Receives::Yes => "yes",
        Receives::NullMx => "null-mx",
        Receives::NoSuchDomain => "no-such-domain",
    },
    [Yes, NullMx, NoSuchDomain]
);
words!(
    /// p= of a DMARC record.
    DMARC_POLICIES: DmarcPolicy,
    |policy| match policy {
        DmarcPolicy::None => "none",
        DmarcPolicy::Quarantine => "quarantine",
        DmarcPolicy::Reject => "reject",
    },
    [None, Quarantine, Reject]
);
words!(
    /// adkim= and aspf= of a DMARC record.
    ALIGNMENTS: Alignment,
    |alignment| match alignment {
        Alignment::Relaxed => "relaxed",
        Alignment::Strict => "strict",
    },
    [Relaxed, Strict]
);

words!(
    /// What is odd about a From field.
    AUTHOR_SIGNS: AuthorSign, AuthorSign::as_str,
    [Missing, Disguised, Repeated, Empty, Group, Unreadable, Domains]
);

/// Classes; `dsn` stands for DSNs of any action.
const CLASSES: Words<Class> = Words {
    all: &[
        Class::Personal,
        Class::AutoReply,
        Class::Challenge,
        Class::Dsn(DsnAction::Failed),
        Class::Mdn,
        Class::DmarcReport,
        Class::FeedbackReport,
        Class::List,
        Class::Bulk,
        Class::Notification,
    ],
    word: Class::as_str,
};

/// The class of a record's `class` and `dsn_action`; `None` when they are not ours.
pub fn class(word: &str, dsn_action: Option<&str>) -> Option<Class> {
    match (CLASSES.find(word)?, dsn_action) {
        (Class::Dsn(_), Some(action)) => DSN_ACTIONS.find(action).map(Class::Dsn),
        (Class::Dsn(_), None) | (_, Some(_)) => None,
        (class, None) => Some(class),
    }
}

/// Peer text as it may stand in a record (law 10).
pub fn harmless(text: impl AsRef<str>) -> String {
    Shown::new(text.as_ref()).into_string()
}

/// The lists as JSON Schema: closed.
#[cfg(test)]
pub mod schema {
    use std::collections::HashSet;

    use schemars::{Schema, SchemaGenerator, json_schema};

    use crate::audit::words::{
        ACTIONS, ALIGNMENTS, AUTH_RESULTS, AUTHOR_SIGNS, CLASSES, DMARC_POLICIES, DSN_ACTIONS,
        FOUND_AS, GAP_CAUSES, LOOP_KINDS, MATCHED_BY, NAMED_BY, ORIGINS, RECEIVES, SPF_SCOPES,
        STANDINGS, TAPS, VERDICTS, Words,
    };
    use crate::judge::decision::{FailureKind, ProofKind, Reason, Scope, Verdict};
    use crate::judge::evidence::GapCause;
    use crate::mail::address::Domain;

    fn closed(words: impl IntoIterator<Item = &'static str>) -> Schema {
        let words: Vec<&str> = words.into_iter().collect();
        json_schema!({ "type": "string", "enum": words })
    }

    fn closed_or_null(words: impl IntoIterator<Item = &'static str>) -> Schema {
        let words: Vec<Option<&str>> = words.into_iter().map(Some).chain([None]).collect();
        json_schema!({ "type": ["string", "null"], "enum": words })
    }

    fn all<T: Copy>(words: Words<T>) -> Vec<&'static str> {
        words.all.iter().map(|value| words.word(*value)).collect()
    }

    macro_rules! fields {
        ($($name:ident: $form:ident($list:expr);)*) => {
            $(pub(crate) fn $name(_: &mut SchemaGenerator) -> Schema { $form($list) })*
        };
    }

    fields! {
        class: closed(all(CLASSES));
        dsn_action: closed_or_null(all(DSN_ACTIONS));
        origin: closed_or_null(all(ORIGINS));
        found_as: closed(all(FOUND_AS));
        verdict: closed_or_null(all(VERDICTS));
        verdict_by: closed_or_null(verdicts_by());
        action: closed(all(ACTIONS));
        would: closed_or_null(all(ACTIONS));
        reason: closed(Reason::ALL.iter().map(|reason| reason.as_str()));
        loop_kind: closed(all(LOOP_KINDS));
        gap_cause: closed(all(GAP_CAUSES));
        auth_result: closed(all(AUTH_RESULTS));
        spf_scope: closed(all(SPF_SCOPES));
        named_by: closed_or_null(all(NAMED_BY));
        source: closed(["authentication-results", "own-received", "reverified", "tap", "arc"]);
        author_sign: closed_or_null(all(AUTHOR_SIGNS));
        receives: closed_or_null(all(RECEIVES));
        matched_by: closed(all(MATCHED_BY));
        standing: closed(all(STANDINGS));
        tap: closed_or_null(all(TAPS));
        dmarc_policy: closed(all(DMARC_POLICIES));
        alignment: closed(all(ALIGNMENTS));
    }

    /// Every verdict there is.
    pub fn every_verdict() -> Vec<Verdict> {
        let domain = Domain::parse("bank.example").unwrap();
        let proofs = [
            ProofKind::Spf,
            ProofKind::Dkim,
            ProofKind::Dmarc,
            ProofKind::DkimHeader,
            ProofKind::SpfGuess,
            ProofKind::OwnSubmission,
        ];
        let authenticated = |by, scope| {
            let domain = domain.clone();
            Verdict::Authenticated { by, domain, scope }
        };
        let address = proofs.map(|by| authenticated(by, Scope::Address));
        let domain_only = proofs.map(|by| authenticated(by, Scope::DomainOnly));
        let failed = [FailureKind::Spf, FailureKind::SoftFail, FailureKind::Dmarc]
            .map(|by| Verdict::Failed { by });
        let unknown = GAP_CAUSES.all.iter().map(|&cause| Verdict::Unknown { cause });
        let rest = [Verdict::Unauthenticated, Verdict::Unresolved];
        address.into_iter().chain(domain_only).chain(failed).chain(rest).chain(unknown).collect()
    }

    fn verdicts_by() -> Vec<&'static str> {
        let verdicts = every_verdict();
        let mut seen = HashSet::new();
        verdicts.iter().filter_map(Verdict::by).filter(|word| seen.insert(*word)).collect()
    }

    /// Every cause of a gap.
    pub fn every_gap_cause() -> &'static [GapCause] {
        GAP_CAUSES.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_read_back_with_its_action() {
        for class_of in CLASSES.all {
            let action = class_of.dsn_action().map(DsnAction::as_str);
            assert_eq!(class(class_of.as_str(), action), Some(*class_of));
        }
        assert_eq!(class("dsn", Some("delayed")), Some(Class::Dsn(DsnAction::Delayed)));
        assert_eq!(class("dsn", None), None);
        assert_eq!(class("mdn", Some("failed")), None);
        assert_eq!(class("nonsense", None), None);
    }

    #[test]
    fn every_word_names_one_value() {
        for cause in GAP_CAUSES.all {
            assert_eq!(GAP_CAUSES.find(GAP_CAUSES.word(*cause)), Some(*cause));
        }
        for kind in LOOP_KINDS.all {
            assert_eq!(LOOP_KINDS.find(LOOP_KINDS.word(*kind)), Some(*kind));
        }
    }
}
