// Messages made of nothing but structure, for tests and for `benches/reading.rs`.

/// One kind of hostile message.
pub struct Shape {
    /// What it is made of, one word.
    pub name: &'static str,
    /// How many of them the measure asks for.
    pub full: usize,
    /// Makes one with so many.
    pub make: fn(usize) -> Vec<u8>,
}

pub const SHAPES: &[Shape] = &[
    Shape { name: "nested-messages", full: 20_000, make: nested_messages },
    Shape { name: "nested-multiparts", full: 20_000, make: nested_multiparts },
    Shape { name: "parts", full: 20_000, make: parts },
    Shape { name: "near-boundaries", full: 300_000, make: near_boundaries },
    Shape { name: "fields", full: 300_000, make: |count| b"X: y\r\n".repeat(count) },
    Shape { name: "received", full: 300_000, make: received },
    Shape { name: "folds", full: 300_000, make: folds },
    Shape { name: "addresses", full: 100_000, make: addresses },
    Shape { name: "comments", full: 2_000_000, make: comments },
    Shape { name: "report-groups", full: 100_000, make: report_groups },
    Shape { name: "quotes", full: 300_000, make: quotes },
    Shape { name: "message-ids", full: 100_000, make: message_ids },
];

fn nested_messages(count: usize) -> Vec<u8> {
    b"Content-Type: message/rfc822\r\n\r\n".repeat(count)
}

fn nested_multiparts(count: usize) -> Vec<u8> {
    let level = |number| {
        format!("Content-Type: multipart/mixed; boundary=b{number}\r\n\r\n--b{number}\r\n")
    };
    (0..count).map(level).collect::<String>().into_bytes()
}

fn parts(count: usize) -> Vec<u8> {
    let part = b"--b\r\nContent-Type: message/delivery-status\r\n\r\nAction: failed\r\n\r\n";
    [b"Content-Type: multipart/report; boundary=b\r\n\r\n".to_vec(), part.repeat(count)].concat()
}

/// Lines that begin like a boundary and are none.
fn near_boundaries(count: usize) -> Vec<u8> {
    let almost = "b".repeat(69);
    let head = format!("Content-Type: multipart/mixed; boundary={almost}b\r\n\r\n");
    let line = format!("--{almost}x\r\n");
    [head.into_bytes(), line.into_bytes().repeat(count)].concat()
}

fn received(count: usize) -> Vec<u8> {
    b"Received: from a (b [192.0.2.1]) by c with SMTP id d; Thu, 1 Jan 2026 00:00:00 +0000\r\n"
        .repeat(count)
}

fn folds(count: usize) -> Vec<u8> {
    [b"Subject: x\r\n".to_vec(), b"\t=?utf-8?q?=20?=\r\n".repeat(count)].concat()
}

fn addresses(count: usize) -> Vec<u8> {
    [b"From: ".to_vec(), b"a@b.example,\r\n ".repeat(count), b"\r\n\r\nx\r\n".to_vec()].concat()
}

fn comments(count: usize) -> Vec<u8> {
    let open = b"(".repeat(count);
    let names: [&[u8]; 4] =
        [b"From: ", b"\r\nReceived: from ", b"\r\nAuthentication-Results: a; ", b"\r\nTo: "];
    names.iter().flat_map(|name| [*name, open.as_slice()]).collect::<Vec<_>>().concat()
}

fn report_groups(count: usize) -> Vec<u8> {
    let head =
        b"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; a\r\n\r\n".to_vec();
    let group = b"Final-Recipient: rfc822; a@b.example\r\nAction: failed\r\n\r\n";
    [head, group.repeat(count)].concat()
}

/// A text that might quote a message at each of its lines.
fn quotes(count: usize) -> Vec<u8> {
    let line =
        b"> From: a@b.example\r\nReceived: x\r\n------ This is a copy of the message ------\r\n";
    [b"From: a@b.example\r\nSubject: failure\r\n\r\n".to_vec(), line.repeat(count / 3)].concat()
}

fn message_ids(count: usize) -> Vec<u8> {
    [b"References:".to_vec(), b" <a@b.example>\r\n".repeat(count), b"\r\n".to_vec()].concat()
}
