//! The SMTP client's side: whatever a next hop says, cut anywhere, its replies are read alike, byte
//! for byte, or it is at fault; and what it offers is never more than it said.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use replyguard::mail::limits::{REPLY_LINE_BYTES_MAX, REPLY_LINES_MAX};
use replyguard::mail::reply::Reply;
use replyguard::wire::keywords::Keywords;
use replyguard::wire::smtp_client::{ReplyFault, ReplyReader};
use replyguard_fuzz::{packets, seeded};

fn replies(packets: &[&[u8]]) -> Vec<Result<Reply, ReplyFault>> {
    let (mut reader, mut buffer, mut replies) =
        (ReplyReader::default(), BytesMut::new(), Vec::new());
    for packet in packets {
        buffer.extend_from_slice(packet);
        while let Some(reply) = reader.next(&mut buffer) {
            let is_over = reply.is_err();
            replies.push(reply);
            if is_over {
                return replies;
            }
        }
        assert!(buffer.len() <= REPLY_LINE_BYTES_MAX + 1);
    }
    replies
}

fuzz_target!(|input: &[u8]| {
    let (seed, wire) = seeded(input);
    let read = replies(&[wire]);
    assert_eq!(replies(&packets(seed, wire)), read);

    let said: Vec<&Reply> = read.iter().filter_map(|reply| reply.as_ref().ok()).collect();
    // A line may have ended in LF alone; nothing else is changed.
    let wires: Vec<u8> = said.iter().flat_map(|reply| reply.wire().to_vec()).collect();
    let lf = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace("\r\n", "\n").into_bytes();
    assert!(lf(wire).starts_with(&lf(&wires)));
    for reply in &said {
        assert!((200..600).contains(&reply.code()));
        assert!(reply.wire().split(|byte| *byte == b'\n').count() <= REPLY_LINES_MAX + 1);
        let _ = (reply.text(), reply.enhanced(), reply.severity());
    }
    let offers: Vec<Keywords> = said.iter().map(|reply| Keywords::from_reply(reply)).collect();
    let met = Keywords::meet(&offers, &["X-OURS".to_owned()], 1000);
    for keyword in ["8BITMIME", "SMTPUTF8", "DSN", "SIZE", "DELIVERBY", "MT-PRIORITY", "X-OURS"] {
        assert!(!met.has(keyword) || offers.iter().all(|offer| offer.has(keyword)), "{keyword}");
    }
});
