//! Station 3: what names the subject message of a response, best first.
//!
//! Takes: a `Reading`, and the embedded header with its trace. Gives: the `Key`s of an `Original`.
//! Bounds: `limits::ORIGINAL_KEYS_MAX`; each key once.
//! Standards: RFC 3464 §2.2.1, RFC 5322 §3.6.4, RFC 8098 §3.2.5.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::judge::border::Trace;
use crate::judge::original::{Key, NamedBy};
use crate::judge::reading::Reading;
use crate::mail::header::{Field, Fields};
use crate::mail::limits::ORIGINAL_KEYS_MAX;
use crate::mail::report::{Content, Dsn};

/// What names the subject message, best first: the queue id on our host, its own Message-ID, the
/// envelope id, and what the response refers to.
pub fn keys(reading: &Reading<'_>, header: &Fields<'_>, trace: &Trace) -> Vec<Key> {
    let own = &reading.view.fields;
    let mut keys = Keys::default();
    match reading.report.as_ref().map(|report| &report.content) {
        Some(Content::Dsn(dsn)) => keys.add_queue_ids(reading, dsn),
        Some(Content::Mdn(mdn)) => {
            keys.add_ids(mdn.original_message_id.clone(), NamedBy::OriginalMessageId);
        }
        _ => {}
    }
    if let Some(line) = trace.top() {
        keys.add_queue_id(line.by.as_deref(), line.id.as_deref());
    }
    if keys.0.is_empty()
        && let Some(id) = exim_id(reading)
    {
        keys.add_queue_id(reading.reporter(), Some(&id));
    }
    let embedded = header.all("message-id").flat_map(Field::message_ids);
    let embedded_by = match reading.embedded().is_some() {
        true => NamedBy::EmbeddedHeader,
        false => NamedBy::Text,
    };
    keys.add_ids(embedded, embedded_by);
    if let Some(Content::Dsn(Dsn { envelope_id: Some(id), .. })) =
        reading.report.as_ref().map(|report| &report.content)
    {
        keys.add(Key::EnvelopeId(id.clone()));
    }
    keys.add_ids(own.all("in-reply-to").flat_map(Field::message_ids), NamedBy::InReplyTo);
    let references: Vec<String> = own.all("references").flat_map(Field::message_ids).collect();
    keys.add_ids(references.into_iter().rev(), NamedBy::References);
    let parent = own.all("x-ms-exchange-parent-message-id").flat_map(Field::message_ids);
    keys.add_ids(parent, NamedBy::ExchangeParent);
    keys.0
}

/// Keys in their order, each once.
#[derive(Default)]
struct Keys(Vec<Key>);

impl Keys {
    fn add(&mut self, key: Key) {
        if self.0.len() < ORIGINAL_KEYS_MAX && !self.0.contains(&key) {
            self.0.push(key);
        }
    }

    fn add_ids(&mut self, ids: impl IntoIterator<Item = String>, named_by: NamedBy) {
        for id in ids {
            let is_known =
                |key: &Key| matches!(key, Key::MessageId { id: known, .. } if *known == id);
            if !self.0.iter().any(is_known) {
                self.add(Key::MessageId { id, named_by });
            }
        }
    }

    fn add_queue_id(&mut self, host: Option<&str>, id: Option<&str>) {
        if let Some(id) = id {
            let host = host.unwrap_or_default().to_ascii_lowercase();
            self.add(Key::QueueId { host, id: id.to_owned() });
        }
    }

    /// Postfix names the subject message's queue id in a field and in its boundary,
    /// `QUEUEID.SECONDS/host`. Sendmail's boundary looks alike and holds the *report's* own id, so
    /// the boundary counts only with Postfix's Content-Description.
    fn add_queue_ids(&mut self, reading: &Reading<'_>, dsn: &Dsn) {
        self.add_queue_id(dsn.reporting_mta.as_deref(), dsn.queue_id.as_deref());
        let root = reading.view.root();
        let boundary = root.and_then(|root| root.media.parameter("boundary")).unwrap_or_default();
        if let Some((id, rest)) = boundary.split_once('.')
            && let Some((seconds, host)) = rest.split_once('/')
            && seconds.bytes().all(|byte| byte.is_ascii_digit())
            && reading.view.parts().iter().any(|part| part.description == "Notification")
        {
            self.add_queue_id(Some(host), Some(id));
        }
    }
}

/// What Exim puts before the id.
static EXIM_LABEL: LazyLock<Finder<'static>> =
    LazyLock::new(|| Finder::new("the message identifier is:"));

/// Exim's delay notice embeds nothing, but names its message in the text.
fn exim_id(reading: &Reading<'_>) -> Option<String> {
    let text = reading.own_words();
    let label = EXIM_LABEL.find(text.as_bytes())?;
    let rest = text.get(label + EXIM_LABEL.needle().len()..)?;
    let folded_id = rest.split_whitespace().next()?;
    // Why: the folded text has lost the letter case that ids of Exim live by.
    let mut words = reading.text().split_whitespace();
    words.find(|word| word.eq_ignore_ascii_case(folded_id)).map(str::to_owned)
}
