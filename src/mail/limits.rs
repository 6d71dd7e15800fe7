//! Every bound of the program, its unit and its reason, in one place.
//!
//! Law 8: everything has a bound; past it stands a 4xx, a 5xx or a signal, never memory.
//! Bounds that an administrator may move are settings; their defaults stand in `config`.

use std::num::NonZeroUsize;
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

/// Bytes of one reply line of ours with its CRLF (RFC 5321 §4.5.3.1.5).
pub const OWN_REPLY_BYTES_MAX: usize = 512;

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

/// DNS answers remembered. With `DNS_CACHED_BYTES_MAX` each: 64 MiB at the very worst, about 3 MiB
/// in practice.
pub const DNS_CACHE_ENTRIES_MAX: NonZeroUsize = match NonZeroUsize::new(8192) {
    Some(entries) => entries,
    None => NonZeroUsize::MIN,
};

/// Bytes of a DNS answer that is still remembered; TXT records of large companies have 4 KiB.
pub const DNS_CACHED_BYTES_MAX: usize = 8 * 1024;

/// DNS questions under way at once. With answers of at most 64 KiB each: 64 MiB at the very worst.
pub const DNS_QUESTIONS_MAX: usize = 1024;

/// How long a DNS answer is remembered at least, whatever its TTL: a zone with TTL 0 must not
/// make each of its bounces a question.
pub const DNS_TTL_MIN: Duration = Duration::from_secs(30);

/// How long a DNS answer is remembered at most: an hour after it was published, a new DMARC
/// record counts everywhere.
pub const DNS_TTL_MAX: Duration = Duration::from_secs(3600);

/// How long "no such name" and "no such record" are remembered at most (RFC 2308 §5 allows
/// hours): who publishes a record for the first time wants it to count soon.
pub const DNS_NEGATIVE_TTL_MAX: Duration = Duration::from_secs(300);

/// How long a failure is remembered: long enough that one dead zone does not stall a queue run,
/// short enough that the next retry of the client asks again.
pub const DNS_FAILURE_TTL: Duration = Duration::from_secs(10);

/// DNS questions of one DMARC tree walk (RFC 9989 §4.10).
pub const DMARC_WALK_QUESTIONS_MAX: usize = 8;

/// Bytes of one SPF record. RFC 7208 §3.4 advises 450; flattened ones have up to 4 KiB.
pub const SPF_RECORD_BYTES_MAX: usize = 8 * 1024;

/// Bytes of a name that SPF macros expand to, before it is cut to 253 (RFC 7208 §7.3).
pub const SPF_EXPANDED_BYTES_MAX: usize = 16 * 1024;

/// Terms of an SPF evaluation that may ask DNS (RFC 7208 §4.6.4).
pub const SPF_TERMS_MAX: usize = 10;

/// Terms of an SPF evaluation that may find nothing in DNS (RFC 7208 §4.6.4).
pub const SPF_VOID_MAX: usize = 2;

/// Mail servers of one `mx` term of SPF (RFC 7208 §4.6.4).
pub const SPF_MAIL_SERVERS_MAX: usize = 10;

/// Names of a client that SPF's `ptr` looks at (RFC 7208 §4.6.4).
pub const SPF_NAMES_MAX: usize = 10;

/// Prefix length of an IPv4 network below which an SPF pass lets everybody in.
pub const SPF_WIDE_V4: u8 = 8;

/// Prefix length of an IPv6 network below which an SPF pass lets everybody in.
pub const SPF_WIDE_V6: u8 = 16;

/// DKIM-Signature fields of one message that are verified; real ones have up to four.
pub const DKIM_SIGNATURES_MAX: usize = 10;

/// Fields of a message that DKIM looks at. A signature that needs one behind fails.
pub const RAW_FIELDS_MAX: usize = 2000;

/// Bytes of a header that DKIM looks at; a longer one counts as unsigned. Each signature is
/// verified over a copy of the fields it signs.
pub const DKIM_HEADER_BYTES_MAX: usize = 512 * 1024;

/// Tags of one signature, seal or key record; the standards know some twenty. Each is compared with
/// all before it.
pub const DKIM_TAGS_MAX: usize = 64;

/// Canonical bytes that the signatures of one message may keep together until their keys are there:
/// some mail waits for a place, and a whole header for each of its signatures would add up. Real
/// ones need a few tens of KiB.
pub const DKIM_CANONICAL_BYTES_MAX: usize = 1024 * 1024;

/// Names in h= of one signature: over-signing writes some thirty. With the bound above: 200,000
/// comparisons of a name.
pub const DKIM_FIELDS_SIGNED_MAX: usize = 100;

/// Key records of one selector that are tried; there should be one.
pub const DKIM_KEYS_MAX: usize = 3;

/// Instances of one ARC chain (RFC 8617 §4.2.1).
pub const ARC_SETS_MAX: usize = 50;

/// Bytes of the ARC fields of one message; a set has 2 to 3 KiB, and each seal is verified over
/// all sets before it.
pub const ARC_BYTES_MAX: usize = 128 * 1024;

/// Bits of an RSA key below which a signature is refused (RFC 8301 §3.2).
pub const DKIM_KEY_BITS_MIN: usize = 1024;

/// Mailboxes read of one From field; real ones have one.
pub const AUTHORS_MAX: usize = 32;

/// How long the verification of one message may take in all. RFC 7208 §4.6.4 asks for at least
/// 20 s for SPF alone; a response that waits for the result waits 10 s.
pub const VERIFICATION_TIME_MAX: Duration = Duration::from_secs(20);

/// Bytes of one milter frame. A piece of the body has 64 KiB at most, a header field as many as the
/// MTA takes (Postfix's `header_size_limit` is 100 KiB).
pub const MILTER_FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of the header that a tap keeps of one message; DKIM looks at no more.
pub const TAP_HEADER_BYTES_MAX: usize = DKIM_HEADER_BYTES_MAX;

/// Authentication-Results fields of one message that a tap keeps; real ones have up to six. Of more
/// it knows that they are there.
pub const TAP_AUTH_RESULTS_MAX: usize = 100;

/// Messages that taps verify at once; each keeps its signed header fields, some 10 KiB, and with a
/// dead DNS up to `VERIFICATION_TIME_MAX`. More are recorded without results.
pub const TAP_VERIFICATIONS_MAX: usize = 2000;

/// How long the store may take for one record of a tap.
pub const STORE_DEADLINE: Duration = Duration::from_secs(5);

/// How long an MTA may say nothing. Its own client may, for as long as it allows (Postfix 300 s),
/// and libmilter waits two hours.
pub const MILTER_IDLE_DEADLINE: Duration = Duration::from_secs(7260);

/// Connections of MTAs to one guard's taps: a process of the MTA has one.
pub const TAP_SESSIONS_MAX: usize = 5000;

/// Bytes that a program may post of one message: its header and what was found out.
pub const POSTED_BYTES_MAX: usize = 1024 * 1024;

/// The pause after accepting failed: out of file handles, the next try fails at once as well.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How old what we know of a next hop's EHLO may be before it is asked again.
pub const EHLO_AGE_MAX: Duration = Duration::from_secs(300);

/// How long a new session waits for the EHLO of a next hop of which nothing is known yet, when
/// another one is there.
pub const EHLO_WAIT_MAX: Duration = Duration::from_secs(2);

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

/// Bytes of a run of dots and NULs that are looked at as a possible end of the message.
pub const DOT_RUN_BYTES_MAX: usize = 512;

/// Command lines of one session that may be wrong; the next one ends it with 421.
pub const COMMAND_FAULTS_MAX: usize = 20;

/// Bytes of one XFORWARD line; Postfix takes 512.
pub const XFORWARD_LINE_BYTES_MAX: usize = 512;

/// How long a connection to a next hop may take; the next one in the list is waiting.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// How long a next hop may take to greet us and to answer EHLO. RFC 5321 §4.5.3.2.1 allows five
/// minutes; a client of ours waits meanwhile, and another next hop may be there.
pub const GREETING_DEADLINE: Duration = Duration::from_secs(60);

/// How long a next hop may take to answer MAIL or RCPT (RFC 5321 §4.5.3.2.2 and §4.5.3.2.3).
pub const COMMAND_DEADLINE: Duration = Duration::from_secs(300);

/// How long a next hop may take to answer DATA (RFC 5321 §4.5.3.2.4).
pub const DATA_DEADLINE: Duration = Duration::from_secs(120);

/// How long a peer may take to take or give the next bytes of content (RFC 5321 §4.5.3.2.5).
pub const CONTENT_DEADLINE: Duration = Duration::from_secs(180);

/// How long a next hop may take to answer the final dot: RFC 5321 §4.5.3.2.6 asks for ten minutes.
/// A 451 of ours any earlier would deliver twice.
pub const FINAL_DEADLINE: Duration = Duration::from_secs(900);

/// How long the answer to the final dot is still awaited after the client closed its side.
pub const FINAL_DEADLINE_ALONE: Duration = Duration::from_secs(60);

/// How long the answer to the final dot is still awaited when the server has stopped waiting for
/// running transactions: most next hops answer within that, and service managers wait 90 s in all.
pub const FINAL_DEADLINE_STOPPING: Duration = Duration::from_secs(5);

/// How long a whole message may take to come in: a client that gives a byte now and then would keep
/// its share of memory for ever. 50 MB at 256 kbit/s take 27 minutes.
pub const MESSAGE_TIME_MAX: Duration = Duration::from_secs(1800);

/// How long a next hop may take to answer QUIT; nothing depends on it.
pub const QUIT_DEADLINE: Duration = Duration::from_secs(2);

/// How long a client may say nothing between commands (RFC 5321 §4.5.3.2.7).
pub const CLIENT_IDLE_DEADLINE: Duration = Duration::from_secs(300);

/// How long a transaction waits for a session with the next hop before it gets 451.
pub const SESSION_WAIT_MAX: Duration = Duration::from_secs(30);

/// How long a session with the next hop is kept without use. Postfix waits 300 s for a command,
/// but holds one of its 100 processes meanwhile.
pub const SESSION_IDLE_MAX: Duration = Duration::from_secs(30);

/// Messages through one session: enough to save the hellos, few enough to spread over the
/// processes of a next hop.
pub const SESSION_MESSAGES_MAX: u32 = 100;

/// Errors that transactions without delivery in a row make: Exim cuts a client off at 12, Postfix slows
/// down at 10.
pub const SESSION_BARREN_MAX: u32 = 10;

/// How long after its failure a next hop is asked again whether it is back.
pub const HOP_DOWN_FOR: Duration = Duration::from_secs(5);

/// Commands sent to a next hop before its replies are read: their replies fit every socket buffer.
pub const PIPELINE_COMMANDS_MAX: usize = 50;

/// Bytes read or written at once.
pub const NETWORK_BUFFER_BYTES: usize = 32 * 1024;

/// Recipients whose codes stand in our trace at most; above it there are none.
pub const TRACE_RECIPIENTS_MAX: usize = 32;

/// Bytes that our two lines on top of a message take at most; SIZE is announced less by it.
pub const TRACE_LINES_BYTES_MAX: usize = 2048;

/// Bytes of a folded subject that the weak fingerprint looks at.
pub const SUBJECT_BYTES_MAX: usize = 1000;

/// Tags and prefixes taken off one subject; two forwarders that each add one are cut before.
pub const SUBJECT_TAGS_MAX: usize = 64;

/// Mailboxes kept of those that a header says a message went through.
pub const VIA_MAX: usize = 16;

/// Received lines that are asked for the mailbox they name: both ends of a loop stand in the last
/// few.
pub const TAKEN_FOR_LINES_MAX: usize = 4;

/// How often one field may name the same mailbox before many hops are held.
pub const VIA_TIMES_MAX: u32 = 3;

/// Rises of the hops by one step that prove a loop for the strong fingerprint: it is cut at its
/// fourth copy for the same recipient.
pub const RISES_STRONG: u32 = 3;

/// The same for the weak one, whose first copy may not be joined with the others: it is cut at the
/// fifth or sixth.
pub const RISES_WEAK: u32 = 4;

/// Rises needed beyond these where copies come by several paths.
pub const RISES_MIXED: u32 = 2;

/// How often persons may send a message on before its laps count as a loop's.
pub const RESENT_FORGIVEN_MAX: u32 = 4;

const _: () = assert!(RISES_STRONG < RISES_WEAK);

/// How old a trace of ours may be and still count: a queue gives up after five days.
pub const TRACE_AGE_MAX: Duration = Duration::from_secs(7 * 86_400);

/// The most that a limit of conversations may allow: so many moments are kept, 4 bytes each.
pub const RATE_COUNT_MAX: u32 = 1000;

/// The longest time of such a limit.
pub const RATE_SPAN_MAX: Duration = Duration::from_secs(7 * 86_400);

/// Entries of one shard of a table, at least: below, one lock is enough.
pub const TABLE_SHARD_ENTRIES: usize = 8192;

/// Shards of a table: so many sessions look up at once.
pub const TABLE_SHARDS_MAX: usize = 16;

/// Tags that owners of a table's entries are told apart by, 4 bytes each in each shard. Two owners
/// with one tag share one share.
pub const OWNER_TAGS: usize = 16_384;

/// Keys of conversations: 100 bytes each, and 4 for each message counted.
pub const WINDOWS_MAX: usize = 200_000;

/// How long the addresses of a next hop may be asked for.
pub const NAMES_DEADLINE: Duration = Duration::from_secs(5);

/// How often the names of next hops are asked for again.
pub const NEXT_HOP_NAMES_EVERY: Duration = Duration::from_secs(300);

/// How soon a message must come back from the next hop to show that the way goes round.
pub const MISROUTED_AFTER_MAX: Duration = Duration::from_secs(5);

/// How many may come back in `MISROUTED_WINDOW`; each of them is held as a loop of its own.
pub const MISROUTED_MAX: usize = 10;

/// In which time they are counted.
pub const MISROUTED_WINDOW: Duration = Duration::from_secs(60);

/// How long after the last one the way counts as going round: what was told to wait comes again
/// within this time (Postfix tries after 5 minutes first, Exim after 15).
pub const MISROUTED_LASTS: Duration = Duration::from_secs(20 * 60);

/// Time in which limited responses are counted.
pub const LIMIT_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// Limited auto-replies and challenges from one responder to one recipient in `LIMIT_WINDOW`.
pub const AUTO_REPLY_PAIR_MAX: u32 = 1;

/// Limited auto-replies and challenges to one recipient in `LIMIT_WINDOW`.
pub const AUTO_REPLY_RECIPIENT_MAX: u32 = 5;

/// Limited DSNs about one failed recipient to one recipient in `LIMIT_WINDOW`.
pub const DSN_PAIR_MAX: u32 = 1;

/// Limited DSNs to one recipient in `LIMIT_WINDOW`.
pub const DSN_RECIPIENT_MAX: u32 = 20;

/// Failed recipients of one DSN that are counted, each under a key of its own: with all of them one
/// message would push a hundred others' counts out of the table.
pub const FAILED_RECIPIENTS_COUNTED_MAX: usize = 16;

/// Limited MDNs to one recipient in `LIMIT_WINDOW`: refusals of one spam to many of our users.
pub const MDN_RECIPIENT_MAX: u32 = 20;

/// Responses of a kind in `LIMIT_WINDOW` to one recipient whom a signature alone proves: more are
/// hardly answers to him, but to one message of his that somebody sends again and again.
pub const SIGNED_RECIPIENT_MAX: u32 = 20;

/// SPF passes of other reverse-paths than the recorded one that are asked for again, of those that
/// our own lines report: there is one line, and one such path, where a forwarder rewrites.
pub const SPF_PASSES_CHECKED_MAX: usize = 4;

/// Limited MDNs about one message to one recipient in `LIMIT_WINDOW`.
pub const MDN_PAIR_MAX: u32 = 1;

/// Reports from one responder to one recipient in `LIMIT_WINDOW`: a collector of aggregate reports
/// gets one for each domain it serves.
pub const REPORT_PAIR_MAX: u32 = 100;

/// How long a response waits for DNS to recover before it is treated as if nothing were known: a
/// dead zone is no proof of forgery.
pub const DEFER_AGE_MAX: Duration = Duration::from_secs(4 * 3600);

/// How far a date may lie ahead of our clock and still be believed.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(600);

const _: () = assert!(TRACE_RECIPIENTS_MAX * 20 + 1024 <= TRACE_LINES_BYTES_MAX);

/// Bytes reserved for the commands of one client at once.
pub const COMMAND_BUFFER_BYTES: usize = 4096;

/// Connections that are told at once that they may not come in; each is held `QUIT_DEADLINE` at
/// most.
pub const REFUSALS_MAX: usize = 256;

/// Recipients sent on to the next hop before their replies are passed back.
pub const PENDING_REPLIES_MAX: usize = 500;

/// How long DATA waits for room in memory before it gets 452.
pub const BUDGET_WAIT_MAX: Duration = Duration::from_secs(30);

/// Keys whose limited responses are counted: about 150 bytes each.
pub const ANSWERS_MAX: usize = 200_000;

/// Moments kept for one key; every limit is below it.
pub const ANSWERS_SEEN_MAX: usize = 128;

const _: () = assert!((REPORT_PAIR_MAX as usize) < ANSWERS_SEEN_MAX);
const _: () = assert!(2 * (SHOWN_CHARS_MAX + 1) * 10 < RECORD_ENDING_BYTES_MAX);

/// Trace lines of our own that are looked at in one message; a loop is cut long before.
pub const TRACES_READ_MAX: usize = 100;

/// Bytes of one message that `classify` reads: what the daemon reads by default.
pub const CLASSIFY_BYTES_MAX: usize = 256 * 1024;

/// Entries of one allow or deny list, or domains of one file.
pub const LIST_ENTRIES_MAX: usize = 500_000;

/// How far ahead an allow-list entry that helps against forgery may expire.
pub const FORGED_ENTRY_MAX: Duration = Duration::from_secs(30 * 86_400);

/// Domains asked about for one message; a response has one recipient, and few domains speak for it.
/// Of those beyond nothing is known, and the record says so.
pub const DOMAINS_ASKED_MAX: usize = 64;

/// How long gathering the evidence of one message may take in all: the client waits for it with the
/// whole message handed over, and will come again where DNS was slow.
pub const EVIDENCE_TIME_MAX: Duration = Duration::from_secs(10);

/// Verifications (facts of a domain, SPF, DKIM) at once. Each asks at most ten questions at a time.
pub const VERIFICATIONS_MAX: usize = 100;

/// Those for one registrable domain: name servers that answer late must not keep all the others
/// waiting. A provider's answers are remembered, so ten wait at a time at the most.
pub const VERIFICATIONS_OF_ONE_MAX: usize = 10;

/// Groups that domains are counted in. Who shares one with a slow domain waits with it.
pub const VERIFICATION_OWNERS: usize = 256;

const _: () = assert!(VERIFICATIONS_MAX * SPF_MAIL_SERVERS_MAX <= DNS_QUESTIONS_MAX);
const _: () = assert!(VERIFICATIONS_MAX * DKIM_SIGNATURES_MAX <= DNS_QUESTIONS_MAX);
const _: () = assert!(VERIFICATIONS_MAX * (DMARC_WALK_QUESTIONS_MAX + 1) <= DNS_QUESTIONS_MAX);

/// How often idle sessions with next hops are looked for.
pub const TIDY_EVERY: Duration = Duration::from_secs(10);

/// Held messages that the disk does not let go before a full quarantine is taken for full: a disk
/// that refuses so many refuses all.
pub const DROP_FAULTS_MAX: usize = 8;

/// How often old held messages are looked for.
pub const EXPIRE_EVERY: Duration = Duration::from_secs(600);

/// Bytes of an embedded message that are hashed on the task's own thread: less than a millisecond.
pub const VERIFIED_INLINE_BYTES_MAX: usize = 64 * 1024;

/// Recipients kept in the record of one inbound message. What has more is list traffic, or spam;
/// a responder beyond them is as one that cannot be tied to a recipient.
pub const INBOUND_RECIPIENTS_MAX: usize = 100;

/// Message-IDs kept in the record of one inbound message: one is the rule, three have been seen.
pub const INBOUND_IDS_MAX: usize = 8;

/// Mailboxes kept of each address field of one inbound message.
pub const INBOUND_MAILBOXES_MAX: usize = 8;

/// Findings kept in the record of one inbound message: the tap's own, and a few ARC sealers'.
pub const INBOUND_FINDINGS_MAX: usize = 4;

/// Results of one method kept in one of these findings.
pub const INBOUND_RESULTS_MAX: usize = 16;

/// Bytes kept of a text of an inbound message that the peer chose (HELO, queue id, envelope id).
pub const INBOUND_TEXT_BYTES_MAX: usize = 256;

/// Pairs of reply target and recipient under which one inbound message is filed.
pub const INBOUND_PAIRS_MAX: usize = 64;

/// How long a record may stay pending: verification ends before, or its tap has died.
pub const PENDING_MAX: Duration = Duration::from_secs(30);

const _: () = assert!(VERIFICATION_TIME_MAX.as_secs() < PENDING_MAX.as_secs());

/// Records given for one name. A Message-ID has one or two; the latest ones are the nearest.
pub const RECALLED_MAX: usize = 32;

/// HTTP connections at once, each listener: a console, a monitor, and some to spare.
pub const HTTP_CLIENTS_MAX: usize = 32;

/// How long an HTTP connection may last: what is asked for is answered at once.
pub const HTTP_CONNECTION_MAX: Duration = Duration::from_secs(30);
