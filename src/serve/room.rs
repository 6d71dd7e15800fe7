//! Bytes of messages that the taps keep in memory, all connections together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// The room there is.
#[derive(Debug)]
pub struct Room {
    bytes_max: usize,
    used: AtomicUsize,
}

impl Room {
    /// Room for this many bytes.
    pub fn new(bytes_max: usize) -> Arc<Room> {
        Arc::new(Room { bytes_max, used: AtomicUsize::new(0) })
    }

    /// A connection's share of it, nothing yet.
    pub fn share(self: &Arc<Room>) -> Share {
        Share { room: Arc::clone(self), bytes: 0 }
    }

    /// How much is used.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// One connection's share; given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    room: Arc<Room>,
    bytes: usize,
}

impl Share {
    /// Says how many bytes the connection keeps now; whether there is room for them.
    pub fn fits(&mut self, bytes: usize) -> bool {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes <= before {
            self.room.used.fetch_sub(before - bytes, Ordering::Relaxed);
            return true;
        }
        let more = bytes - before;
        self.room.used.fetch_add(more, Ordering::Relaxed) + more <= self.room.bytes_max
    }

    /// A message that the connection hands on: its bytes count until nobody has them any more.
    ///
    /// Why not until the connection is done with it: what is late is still being hashed then.
    pub fn hand_on(&mut self, message: Bytes) -> Bytes {
        let counted = self.bytes.min(message.len());
        self.bytes -= counted;
        let share = Share { room: Arc::clone(&self.room), bytes: message.len() };
        self.room.used.fetch_add(message.len() - counted, Ordering::Relaxed);
        Bytes::from_owner(Kept { message, _share: share })
    }
}

/// A message with its share.
struct Kept {
    message: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.message
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_counted_and_given_back() {
        let room = Room::new(100);
        let (mut one, mut other) = (room.share(), room.share());
        assert!(one.fits(60) && other.fits(40));
        assert!(!other.fits(41));
        assert!(other.fits(0));
        assert_eq!(room.used(), 60);
        drop((one, other));
        assert_eq!(room.used(), 0);
    }

    #[test]
    fn a_message_that_is_handed_on_counts_until_nobody_has_it() {
        let room = Room::new(100);
        let mut share = room.share();
        assert!(share.fits(60));
        let message = share.hand_on(Bytes::from_static(&[0; 64]));
        assert_eq!(room.used(), 64);
        assert!(share.fits(0) && !share.fits(40));
        let reader = message.slice(10..20);
        drop((message, share));
        assert_eq!(room.used(), 64);
        drop(reader);
        assert_eq!(room.used(), 0);
    }
}
