//! Bounds of TLS and of what is read for it, with their units and reasons.

use std::time::Duration;

/// How long a handshake may take, either side. One takes two round trips; past it the session is
/// over, or with a next hop tried again later.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(30);

/// How long a next hop whose handshake failed is spoken to in the clear, where TLS is
/// opportunistic, before it is tried again.
pub const TLS_FAILED_FOR: Duration = Duration::from_secs(300);

/// Bytes of a file with certificates or a key. A system's whole bundle has 250 KiB.
pub const PEM_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Bytes of the file with passwords.
pub const SECRETS_BYTES_MAX: u64 = 1024 * 1024;

/// How long before its end a certificate is warned of. Those of Let's Encrypt are renewed 30 days
/// before.
pub const CERTIFICATE_ENDS_SOON: Duration = Duration::from_secs(14 * 86_400);

/// Bytes that a TLS session holds back before it waits for the peer to read.
pub const TLS_BUFFER_BYTES: usize = 64 * 1024;
