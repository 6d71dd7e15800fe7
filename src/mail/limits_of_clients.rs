//! The bounds of what clients may take of us, beside those in `limits`.

use std::time::Duration;

use crate::mail::limits::COMMAND_LINE_BYTES_MAX;

/// Sessions of one client with the SMTP pass-through tap, where nothing is written: what Postfix
/// allows one (`smtpd_client_connection_count_limit`), so that it need not refuse any of them.
pub const PASS_CLIENT_SESSIONS_MAX: usize = 50;

/// Bits of an IPv6 address that tell clients apart: who has one address has the whole network.
pub const CLIENT_BITS_V6: u32 = 64;

/// How often the log says what a flood of clients would make it say without end. The next line says
/// how often it happened.
pub const COMPLAINED_EVERY: Duration = Duration::from_secs(60);

/// File handles beside those of sessions: the log, the store, messages on their way into the
/// quarantine with their folders, DNS, the administration.
pub const HANDLES_BESIDE: usize = 512;

/// Clients that wait for being accepted, per listener; the system may allow fewer (`somaxconn`, 4096
/// as a rule). Why so many: of those above it the system forgets some that take themselves for
/// connected, and they wait for a greeting for minutes. The library's 128 are too few for a storm.
pub const ACCEPT_QUEUE_MAX: u32 = 4096;

/// Bytes of recipients that a transaction may keep without asking for room: the longest command
/// fits, so the first recipient always does; so do a hundred usual ones.
pub const ENVELOPE_BYTES_FREE: usize = 32 * 1024;

/// How often a RCPT command is kept at the most: read, as it was written, as it goes on to the next
/// hop, and as it is read there.
pub const ENVELOPE_COPIES: usize = 4;

/// KiB of room that a transaction takes at once for more recipients.
pub const ENVELOPE_STEP_KIB: u32 = 64;

const _: () = assert!(ENVELOPE_COPIES * COMMAND_LINE_BYTES_MAX <= ENVELOPE_BYTES_FREE);
