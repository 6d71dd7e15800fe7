//! Whether copies of one message come by with ever more hops behind them.
//!
//! Takes: the hops of each copy that went on, in their order. Gives: `Track`, and how often the
//! hops rose by one and the same step up to a new copy. Pure; a memory keeps it (`store`).
//! Bounds: the last `TRACK_HOPS` different numbers are kept, a byte each; above 254 all are one.
//!
//! More hops alone prove nothing: a copy through a list has more than the direct one, and a path
//! around a broken server has more than the usual one. What goes round adds the same way to its
//! past with every lap: its hops are an arithmetic progression, and each is above all before it.
//! Repeats with equal hops (generated mail, a newsletter sent again, a client that tries again) are
//! no rise, however many there are.

/// Different numbers of hops that are kept of one message. Two copies of a message that go round
/// behind one another need twice the rises of one.
pub const TRACK_HOPS: usize = 12;

/// Bytes of a track in a file.
pub const TRACK_BYTES: usize = TRACK_HOPS + 1;

/// The hops with which a message came by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Track {
    /// Hops and one, the newest first; 0 is nothing.
    hops: [u8; TRACK_HOPS],
    mixed: bool,
}

impl Track {
    /// A copy with that many hops went on.
    pub fn pass(&mut self, hops: u32) {
        let hops = stored(hops);
        self.mixed |= hops < self.highest();
        if !self.hops.contains(&hops) {
            self.hops.rotate_right(1);
            if let Some(first) = self.hops.first_mut() {
                *first = hops;
            }
        }
    }

    /// How often hops rose by one step up to a copy with that many; 0 unless it is above all.
    pub fn rises(&self, hops: u32) -> u32 {
        let hops = stored(hops);
        if hops <= self.highest() {
            return 0;
        }
        let earlier = self.hops.iter().enumerate().filter(|(_, before)| **before > 0);
        let rises = earlier.map(|(index, before)| {
            let step = hops - before;
            let mut wanted = before.checked_sub(step);
            let mut rises = 1;
            for older in self.hops.iter().skip(index + 1).filter(|older| **older > 0) {
                if Some(*older) == wanted {
                    rises += 1;
                    wanted = older.checked_sub(step);
                }
            }
            rises
        });
        rises.max().unwrap_or(0)
    }

    /// Whether copies came in different numbers of hops, each above the one before.
    pub fn has_risen(&self) -> bool {
        self.hops.get(1).is_some_and(|second| *second > 0)
    }

    /// Whether copies with fewer hops came behind copies with more: several paths, or several
    /// copies on one.
    pub fn is_mixed(&self) -> bool {
        self.mixed
    }

    /// The track, to be kept in a file.
    pub fn to_bytes(self) -> [u8; TRACK_BYTES] {
        let mut bytes = [u8::from(self.mixed); TRACK_BYTES];
        bytes.iter_mut().zip(self.hops).for_each(|(byte, hops)| *byte = hops);
        bytes
    }

    /// The track again; any bytes are one.
    pub fn from_bytes(bytes: [u8; TRACK_BYTES]) -> Track {
        let mut hops = [0; TRACK_HOPS];
        hops.iter_mut().zip(bytes).for_each(|(hops, byte)| *hops = byte);
        Track { hops, mixed: bytes.last().is_some_and(|last| *last > 0) }
    }

    fn highest(&self) -> u8 {
        self.hops.iter().copied().max().unwrap_or(0)
    }
}

fn stored(hops: u32) -> u8 {
    u8::try_from(hops.saturating_add(1)).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The rises at the last of these copies, and whether paths were mixed.
    fn rises(hops: &[u32]) -> (u32, bool) {
        let mut track = Track::default();
        let (last, before) = hops.split_last().unwrap();
        before.iter().for_each(|hops| track.pass(*hops));
        (track.rises(*last), track.is_mixed())
    }

    #[test]
    fn what_goes_round_rises_by_one_step() {
        assert_eq!(rises(&[0, 1, 2, 3]), (3, false));
        assert_eq!(rises(&[3, 5, 7, 9]), (3, false));
        assert_eq!(rises(&[1, 2, 6, 10, 14]), (3, false));
        // A copy that came twice, because a 250 was lost, changes nothing.
        assert_eq!(rises(&[3, 3, 5, 5, 5, 7, 7, 9]), (3, false));
        // Two copies of it behind one another.
        assert_eq!(rises(&[1, 3, 2, 5, 4, 7, 6, 9]), (4, true));
    }

    #[test]
    fn what_comes_by_several_paths_does_not() {
        assert_eq!(rises(&[5]).0, 0);
        assert_eq!(rises(&[5, 5, 5, 5, 5]).0, 0);
        assert_eq!(rises(&[5, 6, 5, 6]).0, 0);
        assert_eq!(rises(&[3, 7]).0, 1);
        assert_eq!(rises(&[3, 4, 9]).0, 1);
        assert_eq!(rises(&[9, 5, 3]).0, 0);
        assert_eq!(rises(&[300, 400]).0, 0);
    }

    #[test]
    fn a_track_is_the_same_after_a_restart() {
        let mut track = Track::default();
        for hops in [3, 7, 5, 300] {
            track.pass(hops);
            assert_eq!(Track::from_bytes(track.to_bytes()), track);
        }
    }

    proptest! {
        #[test]
        fn a_loop_is_seen_whatever_its_step(start in 0..20u32, step in 1..30u32, laps in 1..6u32) {
            let hops: Vec<u32> = (0..=laps).map(|lap| start + lap * step).collect();
            prop_assert_eq!(rises(&hops), (laps, false));
        }

        #[test]
        fn two_paths_never_make_three_rises(
            short in 0..20u32, more in 0..20u32, path in proptest::collection::vec(any::<bool>(), 1..50)
        ) {
            let hops = path.iter().map(|long| if *long { short + more } else { short });
            prop_assert!(rises(&hops.collect::<Vec<_>>()).0 <= 1);
        }
    }
}
