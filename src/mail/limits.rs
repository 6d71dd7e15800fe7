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

/// Bytes of one Authentication-Results field. Those with twenty signatures have about 8 KiB.
pub const AUTH_RESULTS_BYTES_MAX: usize = 64 * 1024;

/// Results in one Authentication-Results field; a message with more signatures is an attack.
pub const AUTH_RESULTS_MAX: usize = 256;

/// Properties of one result; Fastmail's longest have about eight.
pub const AUTH_RESULT_PROPERTIES_MAX: usize = 32;

/// How deep comments of a structured field may be nested; people and programs use one or two.
pub const COMMENT_DEPTH_MAX: usize = 16;

/// How old what we know of a next hop's EHLO may be before it is asked again.
pub const EHLO_AGE_MAX: Duration = Duration::from_secs(300);

/// Fields read of one header. Real ones have up to 150.
pub const FIELDS_MAX: usize = 1000;

/// Bytes of one field that are looked at. References of a long thread and To of a big round letter
/// reach 10 KiB.
pub const FIELD_BYTES_MAX: usize = 16 * 1024;

/// Mailboxes read of one address field.
pub const MAILBOXES_MAX: usize = 64;

/// Message-IDs kept of one field, the last ones.
pub const MESSAGE_IDS_MAX: usize = 32;

/// Bytes of one Message-ID: a line of RFC 5322 §2.1.1.
pub const MESSAGE_ID_BYTES_MAX: usize = 998;

/// Bytes of one Received line that are looked at, its date apart; Exchange's longest have 600.
pub const RECEIVED_BYTES_MAX: usize = 4096;

/// Words and comments read of one Received line; Exchange's longest have about twenty.
pub const RECEIVED_WORDS_MAX: usize = 64;

/// MIME parts read of one message. Reports have up to ten; what lies beyond says nothing of them.
pub const PARTS_MAX: usize = 100;

/// Multiparts inside one another. Gmail's reports have three (report, related, alternative).
pub const PART_DEPTH_MAX: usize = 6;

/// Bytes of a boundary. RFC 2046 §5.1.1 allows 70; real ones are longer.
pub const BOUNDARY_BYTES_MAX: usize = 200;

/// Bytes read of a report's machine-readable part: 200 recipients with long diagnoses fit.
pub const REPORT_BYTES_MAX: usize = 128 * 1024;

/// Recipients read of one report.
pub const REPORT_GROUPS_MAX: usize = 200;

/// Lines of a text that are searched for the message it quotes. Transcripts above it have up to 80.
pub const QUOTE_LINES_MAX: usize = 300;

/// Bytes kept of a message quoted in a text: its header, and as much body as is compared.
pub const QUOTE_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a message's first text that are looked at: reports put what they have to say on top.
pub const TEXT_BYTES_MAX: usize = 32 * 1024;

/// Bytes of text, above what it quotes, that are searched for words.
pub const WORDS_BYTES_MAX: usize = 4 * 1024;

/// Names kept of one subject message. More than these only say the same again.
pub const ORIGINAL_KEYS_MAX: usize = 16;

/// Failed recipients kept of one report.
pub const FAILED_RECIPIENTS_MAX: usize = 100;

/// Received lines read of one header. Servers give up at 50 to 100 hops.
pub const TRACE_LINES_MAX: usize = 100;

/// Bytes of a body that a fingerprint covers.
pub const FINGERPRINT_BODY_BYTES_MAX: usize = 64 * 1024;

const _: () = assert!(2 * ADDRESS_BYTES_MAX + 512 <= COMMAND_LINE_BYTES_MAX);
const _: () = assert!(SIGNAL_DETAIL_BYTES_MAX <= SHOWN_CHARS_MAX);
