//! The bounds of what clients may take of us, beside those in `limits`.

use std::time::Duration;

/// Sessions of one client with the SMTP pass-through tap, where nothing is written: what Postfix
/// allows one (`smtpd_client_connection_count_limit`), so that it need not refuse any of them.
pub const PASS_CLIENT_SESSIONS_MAX: usize = 50;

/// Bits of an IPv6 address that tell clients apart: who has one address has the whole network.
pub const CLIENT_BITS_V6: u32 = 64;

/// How often the log says that clients are turned away, each reason for itself. The next line says
/// how many there were.
pub const REFUSALS_LOGGED_EVERY: Duration = Duration::from_secs(60);
