//! Bytes of messages that the taps keep in memory, all connections together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
}
