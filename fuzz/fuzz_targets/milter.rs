//! Milter: whatever an MTA says, cut anywhere, no panic; and no more is kept than was sent.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use replyguard::wire::milter::{Actions, Frame};
use replyguard::wire::milter_session::{Edits, Session, Step};

fuzz_target!(|wire: &[u8]| {
    let mut session = Session::new(Actions::ADD_FIELDS, 1000);
    let mut buffer = BytesMut::new();
    for piece in wire.chunks(7) {
        buffer.extend_from_slice(piece);
        while let Ok(Some(frame)) = Frame::next(&mut buffer) {
            match session.advance(frame) {
                Ok(Step::Message(arrived)) => {
                    assert!(arrived.message.len() <= 2 * wire.len() + 2);
                    session.edited(&Edits { deleted: vec![1], inserted: None });
                }
                Ok(Step::Listen | Step::Say(_)) => {}
                Ok(Step::Close) | Err(_) => return,
            }
        }
    }
});
