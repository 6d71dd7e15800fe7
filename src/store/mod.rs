//! What we remember between messages: how many limited responses went out (`answers`), and what
//! came in (`Store`).
//!
//! Takes: records of inbound messages, names to look them up by. Gives: what is filed under them.
//! One trait, so that where it is kept is nobody's business; every method is one round trip a
//! message, because one of them may stand behind a network. Records are a cache of what was true
//! when a message came in: losing one makes a verdict *unknown*, never wrong.
//! Errors: `StoreError`. Bounds: each store's settings; `limits::RECALLED_MAX` records a look-up.

pub mod answers;
pub mod codec;
pub mod embedded;
pub mod keyed;
pub mod memory;
pub mod null;
pub mod readers;
pub mod relays;
pub mod returns;
pub mod rows;
pub mod sightings;
pub mod table;
pub mod windows;

use std::future::Future;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::judge::correlation::Recalled;
use crate::judge::subject::{Inbound, InboundId, LookUp};
use crate::mail::address::Address;
use crate::mail::time::Timestamp;
use crate::store::embedded::{Embedded, Keys, OpenError, Snapshot};
use crate::store::memory::Memory;
use crate::store::null::Null;
use crate::store::relays::Relays;

/// An answer on its way.
pub type Asking<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A memory of inbound messages. Cheap to call at the same time from many tasks.
pub trait Store: Send + Sync {
    /// Remembers a record, or replaces the one of the same id: a tap does it twice, *pending* and
    /// *complete*. What is over `Inbound::within_limits` is cut. After `Ok` it can be recalled.
    fn remember<'a>(&'a self, record: &'a Inbound) -> Asking<'a, ()>;

    /// The records filed under any of these names, each once, latest first; of each name at most
    /// `limits::RECALLED_MAX`, the latest, and none older than the retention.
    fn recall<'a>(&'a self, request: &'a Request) -> Asking<'a, Vec<Recalled>>;

    /// Notes that this responder answered this message, and that the answer was delivered.
    fn answered<'a>(&'a self, id: InboundId, by: &'a Address, at: Timestamp) -> Asking<'a, ()>;

    /// Lets go of what is older than the retention, a bounded part at a time; gives how many
    /// records went. To be called now and then until it gives 0.
    fn expire(&self, now: Timestamp) -> Asking<'_, usize>;

    /// Waits until everything remembered so far is where a crash does not reach it.
    fn flush(&self) -> Asking<'_, ()>;

    /// How it stands; asks nobody.
    fn health(&self) -> Health;
}

/// What is looked for, in one round trip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The names.
    pub look_ups: Vec<LookUp>,
    /// Who answers: whether he answered before is told with each record.
    pub responder: Option<Address>,
    /// Now.
    pub now: Timestamp,
}

/// How a store stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Which one: `memory`, `embedded`, `null`.
    pub backend: &'static str,
    /// Records it holds, as far as it knows.
    pub records: u64,
    /// Bytes it takes, of memory or of disk.
    pub bytes: u64,
    /// Records that were refused or lost since the start.
    pub lost: u64,
    /// What is wrong now, for the administrator.
    pub trouble: Option<String>,
    /// Clients that look like gateways nobody named.
    pub undeclared: Vec<IpAddr>,
}

/// `[store]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where records are kept.
    pub backend: Backend,
    /// The file of the embedded store.
    pub path: PathBuf,
    /// How long they are kept.
    pub retention: Duration,
    /// Records at most.
    pub records_max: usize,
    /// Bytes of the file, as counted; the file itself may take half as much again.
    pub bytes_max: u64,
    /// Bytes of memory.
    pub memory_max: usize,
    /// Whether records stand in the file as they are, not sealed.
    pub plain: bool,
}

/// Where records are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// In one file.
    Embedded,
    /// In memory.
    Memory,
    /// Nowhere.
    None,
}

impl Settings {
    /// The built-in ones, with the file in this directory.
    pub fn beside(state_dir: &Path) -> Settings {
        Settings {
            backend: Backend::Embedded,
            path: state_dir.join("store.redb"),
            retention: Duration::from_secs(7 * 86_400),
            records_max: 5_000_000,
            bytes_max: 4 << 30,
            memory_max: 64 << 20,
            plain: false,
        }
    }

    fn memory(&self) -> memory::Settings {
        let (retention, records_max) = (self.retention, self.records_max);
        memory::Settings { retention, records_max, bytes_max: self.memory_max }
    }

    fn embedded(&self) -> embedded::Settings {
        let bytes_max = usize::try_from(self.bytes_max).unwrap_or(usize::MAX);
        embedded::Settings {
            path: self.path.clone(),
            file: memory::Settings { bytes_max, ..self.memory() },
            memory_bytes_max: self.memory_max,
            plain: self.plain,
        }
    }
}

/// Opens the store that the settings ask for; the second value says that a damaged file was set
/// aside. Blocks.
pub fn open(
    settings: &Settings,
    keys: Keys,
) -> Result<(Arc<dyn Store>, Option<String>), OpenError> {
    let (store, damage): (Arc<dyn Store>, _) = match settings.backend {
        Backend::Embedded => {
            let (store, damage) = Embedded::open(settings.embedded(), keys)?;
            (Arc::new(store), damage)
        }
        Backend::Memory => (Arc::new(Memory::new(settings.memory(), keys.current)), None),
        Backend::None => (Arc::new(Null), None),
    };
    Ok((Arc::new(Relays::new(store)), damage))
}

/// What another process may read of a running daemon's store; nothing where it keeps no file.
pub fn beside_daemon(settings: &Settings, keys: Keys) -> Result<Arc<dyn Store>, OpenError> {
    Ok(match settings.backend {
        Backend::Embedded => Arc::new(Snapshot::open(settings.embedded(), keys)?),
        Backend::Memory | Backend::None => Arc::new(Null),
    })
}

/// Why a store did not do as it was asked. All temporary: what was lost counts as never seen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Temporary; it has more to write than its disk takes.
    #[error("the store has too much to write")]
    Busy,
    /// Temporary; the operator acts.
    #[error("the store failed: {0}")]
    Failed(String),
    /// Temporary; it did not answer in time.
    #[error("the store did not answer in time")]
    Late,
}
