//! Outcomes to the replies the client sees: the only place where an error becomes an SMTP code.
//!
//! Standards: RFC 5321 §4.2, RFC 2033 §4.2, RFC 3463.

use ulid::Ulid;

use crate::audit::fault::Error;
use crate::guard::outcome::{Outcome, Words};
use crate::mail::reply::Reply;
use crate::wire::endpoint::Protocol;

/// The replies: with LMTP one for each recipient; with SMTP the one that stands for all.
///
/// `recorded` is what became of the records. None when the client is gone.
pub fn replies(
    outcomes: &[Outcome],
    recorded: Result<(), Error>,
    protocol: Protocol,
    event: Ulid,
) -> Vec<Reply> {
    let answers = outcomes.iter().map(|outcome| reply(outcome, recorded.as_ref().err(), event));
    match protocol {
        Protocol::Lmtp => answers.flatten().collect(),
        Protocol::Smtp => {
            // Why: one reply for all. What must be tried again or was refused cannot be hidden
            // behind a 250; and a delivery is said in the next hop's own words.
            let rank = |reply: &Reply, relayed: bool| match (reply.code(), relayed) {
                (400..500, _) => 0,
                (500.., _) => 1,
                (_, true) => 2,
                _ => 3,
            };
            let ranked = outcomes.iter().zip(answers).filter_map(|(outcome, reply)| {
                reply.map(|reply| (rank(&reply, outcome.is_delivered()), reply))
            });
            ranked.min_by_key(|(rank, _)| *rank).map(|(_, reply)| reply).into_iter().collect()
        }
    }
}

/// The reply for one outcome.
pub fn reply(outcome: &Outcome, unrecorded: Option<&Error>, event: Ulid) -> Option<Reply> {
    Some(match outcome {
        Outcome::Relayed(reply) => reply.clone(),
        // Why: law 1. Without its record on disk a suppression did not happen; held twice is
        // better than held and forgotten.
        Outcome::Held { .. } | Outcome::Discarded { .. } if unrecorded.is_some() => {
            Reply::with_id(451, "4.3.0", "the audit log cannot be written", &event.to_string())
        }
        Outcome::Held { reason, .. } | Outcome::Discarded { reason } => {
            Reply::new(250, "2.0.0", &format!("suppressed {event} {reason}"))
        }
        Outcome::Deferred(words) | Outcome::Refused(words) => match words {
            Words::NextHop(reply) => reply.clone(),
            Words::Ours(code, enhanced, text) => {
                Reply::with_id(*code, enhanced, text, &event.to_string())
            }
        },
        Outcome::Unanswered => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::held::HeldId;
    use crate::judge::decision::Reason;

    fn event() -> Ulid {
        Ulid::from_parts(1, 1)
    }

    fn held() -> Outcome {
        let id = HeldId { event: event(), n: 1 };
        Outcome::Held { id, reason: Reason::FailedSpf }
    }

    fn said(outcomes: &[Outcome], protocol: Protocol) -> Vec<String> {
        let replies = replies(outcomes, Ok(()), protocol, event());
        let text = |reply: Reply| String::from_utf8(reply.wire().to_vec()).unwrap();
        replies.into_iter().map(text).collect()
    }

    #[test]
    fn a_suppressed_message_is_told_250_with_event_and_reason() {
        let expected = format!("250 2.0.0 suppressed {} failed-spf\r\n", event());
        assert_eq!(said(&[held()], Protocol::Smtp), [expected]);
    }

    #[test]
    fn one_reply_stands_for_all_and_hides_nothing() {
        let relayed = || Outcome::Relayed(Reply::new(250, "2.0.0", "queued as X"));
        let later = || Outcome::later("4.4.1", "later");
        let no = || Outcome::refusal(Reply::new(550, "5.1.1", "no"));
        assert_eq!(said(&[held(), relayed()], Protocol::Smtp), ["250 2.0.0 queued as X\r\n"]);
        let deferred = format!("451 4.4.1 later {}\r\n", event());
        assert_eq!(said(&[held(), relayed(), later(), no()], Protocol::Smtp), [deferred]);
        assert_eq!(said(&[held(), no()], Protocol::Smtp), ["550 5.1.1 no\r\n"]);
        assert_eq!(said(&[held(), relayed(), no()], Protocol::Lmtp).len(), 3);
        assert!(said(&[Outcome::Unanswered], Protocol::Smtp).is_empty());
    }
}
