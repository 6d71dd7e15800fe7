//! What we remember between messages.
//!
//! For now: how many limited responses went out, in memory (`answers`). It is lost at a restart.

pub mod answers;
