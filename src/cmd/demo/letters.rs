//! The demo's mail, as real servers write it; all names are reserved ones.

use crate::mail::time::Timestamp;

/// A person writes to a person.
pub fn personal() -> String {
    "Received: from desk.uni.example (localhost [127.0.0.1])\r\n\tby mx.uni.example (Postfix) with \
     ESMTPSA id 0A1; Sat, 21 Nov 2026 10:00:00 +0000\r\nFrom: Ann <ann@uni.example>\r\nTo: Joe \
     <joe@bank.example>\r\nSubject: Lunch on Tuesday?\r\nDate: Sat, 21 Nov 2026 10:00:00 \
     +0000\r\nMessage-ID: <lunch@uni.example>\r\n\r\nDear Joe,\r\n\r\nTuesday at noon?\r\n\r\nAnn\r\n"
        .to_owned()
}

/// Ann's out-of-office reply of this moment, as Pigeonhole writes it: nothing of what it answers but
/// its id.
pub fn vacation(to: &str, id: &str, now: Timestamp) -> String {
    let date = now.header_date();
    format!(
        "Received: from mx.uni.example (localhost [127.0.0.1])\r\n\tby mx.uni.example (Postfix) \
         with ESMTP id V{id}; {date}\r\nMessage-ID: <dovecot-sieve-{id}@mx.uni.example>\r\nDate: \
         {date}\r\nFrom: Ann <ann@uni.example>\r\nTo: <{to}>\r\nSubject: Auto: \
         Minutes\r\nIn-Reply-To: <{id}@host.example>\r\nReferences: \
         <{id}@host.example>\r\nAuto-Submitted: auto-replied (vacation)\r\nPrecedence: \
         bulk\r\n\r\nI am away until Monday.\r\n"
    )
}

/// What our border found out about the message that is bounced.
pub struct Original<'a> {
    /// Its MAIL FROM, which the bounce goes to.
    pub from: &'a str,
    /// The client's address.
    pub client: &'a str,
    /// The results our border stamped on it.
    pub results: &'a str,
    /// Whom it was for, and who is not there.
    pub to: &'a str,
    /// Its subject.
    pub subject: &'a str,
    /// A number that makes it one of many.
    pub number: usize,
}

/// Postfix's bounce of it (RFC 3464).
pub fn bounce(original: &Original<'_>) -> String {
    let Original { from, client, results, to, subject, number } = original;
    let id = format!("{:010X}", 0x00C0_FFEE + number);
    format!(
        "Received: by mx.uni.example (Postfix)\r\n\tid B{id}; Sat, 21 Nov 2026 10:00:01 +0000 \
         (UTC)\r\nDate: Sat, 21 Nov 2026 10:00:01 +0000 (UTC)\r\nFrom: Mail Delivery System \
         <MAILER-DAEMON@uni.example>\r\nSubject: Undelivered Mail Returned to Sender\r\nTo: \
         {from}\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\nContent-Type: \
         multipart/report; report-type=delivery-status;\r\n\tboundary=\"{id}.1/mx.uni.example\"\
         \r\nMessage-Id: <B{id}@mx.uni.example>\r\n\r\n--{id}.1/mx.uni.example\r\nContent-Type: \
         text/plain; charset=utf-8\r\n\r\nThis is the mail system at host mx.uni.example.\r\n\r\n\
         <{to}>: unknown user\r\n\r\n--{id}.1/mx.uni.example\r\nContent-Type: \
         message/delivery-status\r\n\r\nReporting-MTA: dns; mx.uni.example\r\nX-Postfix-Queue-ID: \
         {id}\r\nX-Postfix-Sender: rfc822; {from}\r\nArrival-Date: Sat, 21 Nov 2026 10:00:00 +0000 \
         (UTC)\r\n\r\nFinal-Recipient: rfc822; {to}\r\nAction: failed\r\nStatus: \
         5.1.1\r\n\r\n--{id}.1/mx.uni.example\r\nContent-Type: message/rfc822\r\n\r\nReturn-Path: \
         <{from}>\r\nAuthentication-Results: mx.uni.example; {results}\r\nReceived: from \
         host.example (unknown [{client}])\r\n\tby mx.uni.example (Postfix) with ESMTP id \
         {id}\r\n\tfor <{to}>; Sat, 21 Nov 2026 10:00:00 +0000 (UTC)\r\nFrom: <{from}>\r\nTo: \
         {to}\r\nSubject: {subject}\r\nDate: Sat, 21 Nov 2026 09:59:58 +0000\r\nMessage-ID: \
         <{number}@host.example>\r\n\r\nWatch and win.\r\n\r\n--{id}.1/mx.uni.example--\r\n"
    )
}
