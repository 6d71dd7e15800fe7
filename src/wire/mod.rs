//! Protocols without sockets: bytes in, events and bytes out.

pub mod endpoint;
