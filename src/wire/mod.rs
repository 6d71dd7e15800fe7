//! Protocols without sockets: bytes in, events and bytes out.

pub mod command;
pub mod endpoint;
pub mod kept;
pub mod keywords;
pub mod line;
pub mod milter;
pub mod milter_session;
pub mod opening;
pub mod passing;
pub mod proxy;
pub mod secure;
pub mod smtp_client;
pub mod smtp_server;
