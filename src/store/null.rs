//! A store that remembers nothing: what the guard can do without memory.

use crate::judge::correlation::Recalled;
use crate::judge::subject::{Inbound, InboundId};
use crate::mail::address::Address;
use crate::mail::time::Timestamp;
use crate::store::{Asking, Health, Request, Store};

/// Remembers nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Null;

impl Store for Null {
    fn remember<'a>(&'a self, _record: &'a Inbound) -> Asking<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn recall<'a>(&'a self, _request: &'a Request) -> Asking<'a, Vec<Recalled>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn answered<'a>(&'a self, _id: InboundId, _by: &'a Address, _at: Timestamp) -> Asking<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn expire(&self, _now: Timestamp) -> Asking<'_, usize> {
        Box::pin(async { Ok(0) })
    }

    fn flush(&self) -> Asking<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn health(&self) -> Health {
        Health { backend: "null", ..Health::default() }
    }
}
