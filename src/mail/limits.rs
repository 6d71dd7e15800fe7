//! Every bound of the program, its unit and its reason, in one place.
//!
//! Law 8: everything has a bound; past it stands a 4xx, a 5xx or a signal, never memory.
//! Bounds that an administrator may move are settings; their defaults stand in `config`.

use std::time::Duration;

/// Bytes of one address, its source route included. RFC 5321 §4.5.3.1.3 asks for 256; VERP and
/// SRS forms of long addresses are longer.
pub const ADDRESS_BYTES_MAX: usize = 1024;

/// Characters of peer text shown to a person at once.
pub const SHOWN_CHARS_MAX: usize = 512;

/// Bytes of one command line with its CRLF. RFC 5321 §4.5.3.1.4 asks for 512 and extensions add
/// to it; two addresses of `ADDRESS_BYTES_MAX` (path and ORCPT in xtext) fit.
pub const COMMAND_LINE_BYTES_MAX: usize = 8192;

/// Bytes of one reply line of a next hop. RFC 5321 §4.5.3.1.5 asks for 512; real ones are longer.
pub const REPLY_LINE_BYTES_MAX: usize = 4096;

/// Lines of one reply of a next hop; EHLO replies have about fifteen.
pub const REPLY_LINES_MAX: usize = 128;

/// ESMTP parameters of one command.
pub const PARAMETERS_MAX: usize = 32;

/// Recipients of one transaction. RFC 5321 §4.5.3.1.8 asks for 100; large MTAs send 1,000.
pub const RECIPIENTS_MAX: usize = 2000;

/// Signals named for one message; each class is reached by far fewer.
pub const SIGNALS_MAX: usize = 32;

/// Bytes kept of one signal's detail.
pub const SIGNAL_DETAIL_BYTES_MAX: usize = 200;

/// How old what we know of a next hop's EHLO may be before it is asked again.
pub const EHLO_AGE_MAX: Duration = Duration::from_secs(300);

/// Bytes of one line of the audit log; most have 2 KiB. Fits into one datagram of a local socket.
pub const RECORD_BYTES_MAX: usize = 64 * 1024;

/// Bytes that its ending (reply, next hop, place in quarantine) can add to a record: two texts of
/// `SHOWN_CHARS_MAX` characters, each escaped once for people and once for JSON.
pub const RECORD_ENDING_BYTES_MAX: usize = 12 * 1024;

/// Bytes by which the audit log's file is allocated ahead.
pub const AUDIT_CHUNK_BYTES: u64 = 1024 * 1024;

/// Bytes of audit lines kept in memory: those not yet durable, and those that wait for the file
/// to be back. About 8,000 records each.
pub const AUDIT_KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long an audit line may stand in the file before it is synced; a second with the sync's own
/// time.
pub const AUDIT_SYNC_AFTER: Duration = Duration::from_millis(500);

/// Records that later ones of a joe job may refer to; each has an event and a hash, 100 bytes.
pub const AUDIT_REPEATS_MAX: usize = 4096;

/// Records that wait for one extra sink.
pub const SINK_QUEUE_MAX: usize = 1024;

/// How long an extra sink may take for one record.
pub const SINK_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest pause before an extra sink is tried again.
pub const SINK_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Messages that are written to the quarantine at once: more would only queue in the disk.
pub const QUARANTINE_WRITES_MAX: usize = 64;

/// Campaigns whose first held copy is remembered; each takes 150 bytes.
pub const CAMPAIGNS_MAX: usize = 10_000;

/// Further copies of a campaign noted beside its first one, about a KiB each; then another copy
/// is held in full.
pub const CAMPAIGN_COPIES_MAX: u64 = 10_000;

/// Bytes of the slip beside a held message: `RECIPIENTS_MAX` recipients with their parameters.
pub const SLIP_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Held messages shown at once.
pub const HELD_LIST_MAX: usize = 1000;

/// How old a held message that never expires may get before an alarm.
pub const HELD_OVERDUE_AFTER: Duration = Duration::from_secs(24 * 3600);

const _: () = assert!(2 * ADDRESS_BYTES_MAX + 512 <= COMMAND_LINE_BYTES_MAX);
const _: () = assert!(SIGNAL_DETAIL_BYTES_MAX <= SHOWN_CHARS_MAX);
const _: () = assert!(2 * (SHOWN_CHARS_MAX + 1) * 10 < RECORD_ENDING_BYTES_MAX);
