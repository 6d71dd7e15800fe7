//! What stands in the quarantine's folder: names of files, and the slip beside a held message.
//!
//! `<event>-<n>.eml` is the message byte-exact as received, `<event>-<n>.json` the slip,
//! `<event>-<n>.copies` further envelopes of the same campaign, a JSON line each. Files on their
//! way end in `.pending`. Paths and parameters stand as they were written, for the release.

use std::fmt;

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::audit::words;
use crate::judge::classify::Class;
use crate::judge::decision::{Decision, Verdict, VerdictKind};
use crate::mail::envelope::{Client, Envelope, MailFrom, Parameters, Recipient};
use crate::mail::shown::Shown;
use crate::mail::time::Timestamp;

/// The file in the folder that says that it is in use.
pub const LOCK: &str = "lock";

/// The version of the slip.
const VERSION: u32 = 1;

/// The name of a held message. Ids of later events are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HeldId {
    /// The event.
    pub event: Ulid,
    /// Which of the messages held for that event, counted from 1.
    pub n: u32,
}

impl HeldId {
    /// Reads `<event>-<n>` as `Display` writes it; `None` for anything else.
    pub fn parse(text: &str) -> Option<HeldId> {
        let (event, n) = text.split_once('-')?;
        let id = HeldId { event: Ulid::from_string(event).ok()?, n: n.parse().ok()? };
        // Why: a name that is written in another way must not lead to the same files.
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for HeldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.event, self.n)
    }
}

/// One of the files of a held message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The message.
    Message,
    /// The message, not yet committed.
    PendingMessage,
    /// The slip.
    Slip,
    /// The slip, not yet committed.
    PendingSlip,
    /// Further envelopes of the campaign.
    Copies,
}

impl Part {
    const ALL: [Part; 5] =
        [Part::Message, Part::PendingMessage, Part::Slip, Part::PendingSlip, Part::Copies];

    fn ending(self) -> &'static str {
        match self {
            Part::Message => ".eml",
            Part::PendingMessage => ".eml.pending",
            Part::Slip => ".json",
            Part::PendingSlip => ".json.pending",
            Part::Copies => ".copies",
        }
    }

    /// The file's name.
    pub fn name(self, id: HeldId) -> String {
        format!("{id}{}", self.ending())
    }

    /// Whose file a name is, and which; `None` for a foreign one.
    pub fn of(name: &str) -> Option<(HeldId, Part)> {
        let (id, _) = name.split_once('.')?;
        let ending = name.get(id.len()..)?;
        let part = Part::ALL.into_iter().find(|part| part.ending() == ending)?;
        Some((HeldId::parse(id)?, part))
    }
}

/// The fingerprint that copies of one campaign share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CampaignKey(pub u128);

impl fmt::Display for CampaignKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl CampaignKey {
    /// Reads 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<CampaignKey> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits.then(|| u128::from_str_radix(text, 16).ok().map(CampaignKey))?
    }
}

/// What stands beside a held message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slip {
    /// Version of this form.
    pub v: u32,
    /// The event.
    pub event: String,
    /// Which of the event's held messages.
    pub n: u32,
    /// When it was held: RFC 3339, UTC.
    pub time: String,
    /// Who it is from and to.
    pub envelope: SlipEnvelope,
    /// Its Message-ID, without angle brackets, harmless.
    pub message_id: Option<String>,
    /// Its class.
    pub class: String,
    /// The action of a DSN.
    pub dsn_action: Option<String>,
    /// The fingerprint its campaign goes by; null when it is of none.
    pub campaign: Option<String>,
    /// Bytes of the message.
    pub size: u64,
    /// BLAKE3 of the message, hexadecimal.
    pub blake3: String,
}

/// A further copy of a held message: everything but the message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopySlip {
    /// Version of this form.
    pub v: u32,
    /// The copy's own event.
    pub event: String,
    /// Which of the event's held messages.
    pub n: u32,
    /// When it was held: RFC 3339, UTC.
    pub time: String,
    /// Who it is from and to.
    pub envelope: SlipEnvelope,
    /// Its own Message-ID, without angle brackets, harmless.
    pub message_id: Option<String>,
}

/// An envelope with the decisions about its recipients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlipEnvelope {
    /// The client's IP address; null for a unix socket.
    pub client: Option<String>,
    /// What the client called itself, as it was written.
    pub helo: String,
    /// What it said of its own client: `NAME=value`, as it came.
    pub xforward: Vec<String>,
    /// The reverse-path as it was written, with angle brackets.
    pub mail_from: String,
    /// MAIL's parameters as they were written.
    pub parameters: Vec<String>,
    /// Those recipients for whom it is held.
    pub recipients: Vec<SlipRecipient>,
}

/// A recipient for whom a message is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlipRecipient {
    /// The forward-path as it was written, with angle brackets.
    pub path: String,
    /// RCPT's parameters as they were written.
    pub parameters: Vec<String>,
    /// The verdict; null where nobody is judged.
    pub verdict: Option<String>,
    /// What decided it.
    pub verdict_by: Option<String>,
    /// The loop; null when there is none.
    pub r#loop: Option<String>,
    /// The rule that matched.
    pub rule: String,
    /// Why, as a code.
    pub reason: String,
    /// Why, as a sentence.
    pub text: String,
}

/// What is known of a message when it is held.
#[derive(Clone, Debug)]
pub struct Holding<'a> {
    /// The name it gets.
    pub id: HeldId,
    /// Now.
    pub time: Timestamp,
    /// Its whole envelope.
    pub envelope: &'a Envelope,
    /// The recipients for whom it is held, each with what was decided; at least one.
    pub recipients: &'a [(&'a Recipient, &'a Decision)],
    /// Its Message-ID, without angle brackets.
    pub message_id: Option<&'a str>,
    /// Its class.
    pub class: Class,
    /// The fingerprint its campaign goes by.
    pub campaign: Option<CampaignKey>,
}

impl Holding<'_> {
    /// The slip, still without size and hash.
    pub fn slip(&self) -> Slip {
        Slip {
            v: VERSION,
            event: self.id.event.to_string(),
            n: self.id.n,
            time: self.time.to_string(),
            envelope: self.slip_envelope(),
            message_id: self.message_id.map(|id| Shown::new(id).into_string()),
            class: self.class.as_str().to_owned(),
            dsn_action: self.class.dsn_action().map(|action| action.as_str().to_owned()),
            campaign: self.campaign.filter(|_| self.is_failed()).map(|key| key.to_string()),
            size: 0,
            blake3: String::new(),
        }
    }

    /// The same as a further copy of a campaign.
    pub fn copy(&self) -> CopySlip {
        let Slip { v, event, n, time, envelope, message_id, .. } = self.slip();
        CopySlip { v, event, n, time, envelope, message_id }
    }

    /// Whether the verdict is *failed* for every one of its recipients.
    pub fn is_failed(&self) -> bool {
        self.recipients.iter().all(|(_, decision)| {
            decision.verdict.as_ref().is_some_and(|verdict| verdict.kind() == VerdictKind::Failed)
        })
    }

    fn slip_envelope(&self) -> SlipEnvelope {
        let Envelope { client, mail, recipients: _ } = self.envelope;
        let Client { ip, helo, xforward, listener: _, tls: _ } = client;
        let MailFrom { path: _, path_text, parameters } = mail;
        SlipEnvelope {
            client: ip.map(|ip| ip.to_string()),
            helo: helo.clone(),
            xforward: xforward.iter().map(|said| format!("{}={}", said.name, said.value)).collect(),
            mail_from: path_text.clone(),
            parameters: texts(parameters),
            recipients: self
                .recipients
                .iter()
                .map(|(recipient, decision)| SlipRecipient::new(recipient, decision))
                .collect(),
        }
    }
}

impl SlipRecipient {
    fn new(recipient: &Recipient, decision: &Decision) -> SlipRecipient {
        let Decision { verdict, loop_finding, rule, reason, text, .. } = decision;
        SlipRecipient {
            path: recipient.path_text.clone(),
            parameters: texts(&recipient.parameters),
            verdict: verdict.as_ref().map(|verdict| verdict.kind().as_str().to_owned()),
            verdict_by: verdict.as_ref().and_then(Verdict::by).map(str::to_owned),
            r#loop: loop_finding.as_ref().map(|finding| finding.kind.as_str().to_owned()),
            rule: rule.clone(),
            reason: reason.as_str().to_owned(),
            text: Shown::new(text).into_string(),
        }
    }
}

fn texts(parameters: &Parameters) -> Vec<String> {
    parameters.iter().map(|parameter| parameter.text.clone()).collect()
}

impl Slip {
    /// Reads a slip; `None` when it is not one of this version or not of this message.
    pub fn parse(bytes: &[u8], id: HeldId) -> Option<Slip> {
        let slip: Slip = serde_json::from_slice(bytes).ok()?;
        let own = slip.v == VERSION && slip.event == id.event.to_string() && slip.n == id.n;
        own.then_some(slip)
    }

    /// When it was held; the epoch when the slip's time cannot be read.
    pub fn held_at(&self) -> Timestamp {
        Timestamp::parse_rfc3339(&self.time).unwrap_or_default()
    }

    /// The class; `None` when its words are not ours.
    pub fn class(&self) -> Option<Class> {
        words::class(&self.class, self.dsn_action.as_deref())
    }

    /// Whether the verdict is *failed* for every recipient.
    pub fn is_failed(&self) -> bool {
        let failed = Some(VerdictKind::Failed.as_str());
        let recipients = &self.envelope.recipients;
        !recipients.is_empty()
            && recipients.iter().all(|recipient| recipient.verdict.as_deref() == failed)
    }

    /// The fingerprint its campaign goes by.
    pub fn campaign_key(&self) -> Option<CampaignKey> {
        self.campaign.as_deref().and_then(CampaignKey::parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_one_message_and_one_part() {
        let id = HeldId { event: Ulid::from_parts(1_795_282_739_042, 7), n: 2 };
        for part in Part::ALL {
            assert_eq!(Part::of(&part.name(id)), Some((id, part)), "{part:?}");
        }
        let event = id.event.to_string();
        for foreign in [
            format!("{event}-2.txt"),
            format!("{event}-02.eml"),
            format!("{event}-+2.eml"),
            format!("{}-2.eml", event.to_lowercase()),
            format!("{event}.eml"),
            "lost+found".to_owned(),
            ".eml".to_owned(),
            String::new(),
        ] {
            assert_eq!(Part::of(&foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_campaign_key_is_32_digits() {
        let key = CampaignKey(0xab);
        assert_eq!(CampaignKey::parse(&key.to_string()), Some(key));
        assert_eq!(CampaignKey::parse("ab"), None);
        assert_eq!(CampaignKey::parse(&format!("+{}", "0".repeat(31))), None);
    }

    #[test]
    fn later_events_are_greater() {
        let at = |millis, n| HeldId { event: Ulid::from_parts(millis, 0), n };
        assert!(at(1, 9) < at(2, 1) && at(2, 1) < at(2, 2));
    }
}
