//! The bounds of what is remembered of inbound mail, as `limits` has those of everything else.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::mail::limits::RECALLED_MAX;

/// Records in question for one response: more that came within a minute are alike.
pub const SUBJECTS_MAX: usize = 8;

/// Names looked up for one recipient of a response.
pub const LOOK_UPS_MAX: usize = 24;

/// How near to one another messages must have come in for a response not to tell them apart.
pub const ALIKE_WITHIN: Duration = Duration::from_secs(60);

/// How long after its arrival a message can be known by its two ends alone: responders answer
/// within seconds, a busy one within minutes.
pub const PAIR_WITHIN: Duration = Duration::from_secs(600);

/// How far dates of one event may lie apart: whole seconds, and two hosts' clocks.
pub const DATES_AGREE_WITHIN: Duration = Duration::from_secs(5);

/// How long an inside host may keep a message before it gives it back.
pub const REINJECTED_WITHIN: Duration = Duration::from_secs(4 * 3600);

/// One client, or one MAIL FROM, owns no more than this part of a store.
pub const OWNER_SHARE: usize = 100;

/// From this part of his share on, what an owner has is filed under him.
pub const OWNER_FILED: u64 = 8;

/// Responders whose answers are noted with one record.
pub const RECORD_ANSWERS_MAX: usize = 32;

/// Records let go of at once: some milliseconds of work.
pub const EXPIRED_AT_ONCE_MAX: usize = 1000;

/// Parts of a memory that are locked on their own.
pub const STORE_SHARDS: usize = 16;

/// How old a record becomes before the embedded store writes it: at a crash this and the write
/// itself is lost.
pub const STORE_GATHER: Duration = Duration::from_millis(20);

// What a crash may cost: this and one write, 50 ms in all where the disk and the processor are free.
const _: () = assert!(STORE_GATHER.as_millis() < 50);

/// What it writes at once, at most.
pub const STORE_BATCH_MAX: usize = 512;

/// What may wait to be written; of bytes no more than the store's share of memory.
pub const STORE_QUEUE_MAX: usize = 8192;

/// That share at least: some records of the largest kind.
pub const STORE_QUEUE_BYTES_MIN: usize = 1 << 20;

/// Threads that read it. Each has a heap of its own.
pub const STORE_READERS: usize = 2;

/// Look-ups that may wait for them.
pub const STORE_ASKED_MAX: usize = 1024;

/// How long a failed store waits before it tries its file again.
pub const STORE_RETRY_AFTER: Duration = Duration::from_secs(2);

/// How long a store may take for one message's look-ups.
pub const RECALL_DEADLINE: Duration = Duration::from_secs(2);

/// Names looked up for one message with all its recipients.
pub const LOOK_UPS_MESSAGE_MAX: usize = 512;

/// How long a response waits for the tap to finish with its subject message; then it gets 451.
pub const PENDING_WAIT_MAX: Duration = Duration::from_secs(10);

/// How often it asks meanwhile.
pub const PENDING_ASKED_EVERY: Duration = Duration::from_millis(250);

/// Clients of inbound mail that are watched for being gateways.
pub const RELAYS_WATCHED_MAX: NonZeroUsize = match NonZeroUsize::new(10_000) {
    Some(clients) => clients,
    None => NonZeroUsize::MIN,
};

/// For how long what was seen of them counts.
pub const RELAY_WATCHED_FOR: Duration = Duration::from_secs(24 * 3600);

/// Domains that a gateway's mail fails SPF for, at least.
pub const RELAY_FAILED_DOMAINS_MIN: usize = 20;

/// Of all domains those that it passes for, in per cent, at most.
pub const RELAY_PASSED_PERCENT_MAX: usize = 20;

/// Domains that it fails for and whose signatures it passes on, at least: no forger has them.
pub const RELAY_SIGNED_DOMAINS_MIN: usize = 5;

/// Recipients of one signature without an SPF pass beside it: one that came in for more was sent
/// again by somebody who is not its signer. Real copies (forwards, lists) are few at one site.
pub const SIGNATURE_RECIPIENTS_MAX: u32 = 20;

/// Signatures of one response that are counted: a message has one or two, a few may be in question.
pub const SIGNATURES_COUNTED_MAX: usize = 16;

const _: () = assert!((SIGNATURE_RECIPIENTS_MAX as usize) < RECALLED_MAX);
