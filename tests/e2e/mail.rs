//! Messages as the tests write and read them.

/// A plain letter. `id` becomes its Message-ID and stands in its subject.
pub fn letter(from: &str, to: &str, id: &str) -> String {
    format!(
        "From: <{from}>\r\nTo: <{to}>\r\nSubject: letter {id}\r\n\
         Date: Sat, 21 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{id}@sender.example>\r\n\
         \r\nHello,\r\n..this line begins with two dots.\r\nGoodbye.\r\n"
    )
}

/// A bounce as a forger sends it: a delivery status notification that no server of ours made,
/// with the letter it pretends to return.
pub fn forged_bounce(to: &str, id: &str) -> String {
    format!(
        "From: Mail Delivery System <MAILER-DAEMON@far.example>\r\nTo: <{to}>\r\n\
         Subject: Undelivered Mail Returned to Sender\r\nMessage-ID: <{id}@far.example>\r\n\
         Date: Sat, 21 Nov 2026 10:00:00 +0000\r\nAuto-Submitted: auto-replied\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=\"cut\"\r\n\r\n\
         --cut\r\n\r\nYour message could not be delivered.\r\n\
         --cut\r\nContent-Type: message/delivery-status\r\n\r\n\
         Reporting-MTA: dns; far.example\r\n\r\nFinal-Recipient: rfc822; nobody@far.example\r\n\
         Action: failed\r\nStatus: 5.1.1\r\n\r\n\
         --cut\r\nContent-Type: message/rfc822\r\n\r\n{}\r\n--cut--\r\n",
        letter(to, "nobody@far.example", &format!("original-{id}"))
    )
}

/// A bounce as our own Postfix writes it, about a letter that came in from `to`: above our Received
/// line stands what our border found out.
pub fn own_bounce(to: &str, id: &str, results: &str) -> String {
    format!(
        "Received: by mx.ours.example (Postfix)\r\n\tid 4B2; Sat, 21 Nov 2026 10:00:01 +0000\r\n\
         From: Mail Delivery System <MAILER-DAEMON@ours.example>\r\nTo: {to}\r\n\
         Subject: Undelivered Mail Returned to Sender\r\nMessage-ID: <bounce-{id}@mx.ours.example>\r\n\
         Date: Sat, 21 Nov 2026 10:00:01 +0000\r\nAuto-Submitted: auto-replied\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=\"4B1/mx\"\r\n\r\n\
         --4B1/mx\r\n\r\nI'm sorry to have to inform you that your message could not\r\n\
         be delivered to one or more recipients.\r\n\
         --4B1/mx\r\nContent-Type: message/delivery-status\r\n\r\n\
         Reporting-MTA: dns; mx.ours.example\r\nX-Postfix-Queue-ID: 4B1\r\n\
         X-Postfix-Sender: rfc822; {to}\r\nArrival-Date: Sat, 21 Nov 2026 10:00:00 +0000\r\n\r\n\
         Final-Recipient: rfc822; gone@ours.example\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n\
         --4B1/mx\r\nContent-Type: message/rfc822\r\n\r\nReturn-Path: <{to}>\r\n\
         Authentication-Results: {results}\r\n\
         Received: from mail.far.example (unknown [192.0.2.55])\r\n\tby mx.ours.example (Postfix) \
         with ESMTP id 4B1; Sat, 21 Nov 2026 10:00:00 +0000\r\n{}\r\n--4B1/mx--\r\n",
        letter(to, "gone@ours.example", id)
    )
}

/// An out-of-office reply, as Pigeonhole writes it, to the letter with this id.
pub fn vacation_reply(from: &str, to: &str, id: &str) -> String {
    format!(
        "From: <{from}>\r\nTo: <{to}>\r\nSubject: Auto: letter {id}\r\n\
         Date: Sat, 21 Nov 2026 10:00:00 +0000\r\nMessage-ID: <reply-{id}@ours.example>\r\n\
         Auto-Submitted: auto-replied (vacation)\r\nPrecedence: bulk\r\n\
         In-Reply-To: <{id}@sender.example>\r\nReferences: <{id}@sender.example>\r\n\
         \r\nI am away.\r\n"
    )
}

/// The header fields put on top of a message, when nothing else of it has changed.
pub fn put_on_top(before: &[u8], after: &[u8]) -> Option<Vec<(String, String)>> {
    let added = after.strip_suffix(before)?;
    (added.is_empty() || added.ends_with(b"\r\n")).then(|| header(added))
}

/// The header fields, unfolded, in order.
pub fn header(message: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(message);
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.split("\r\n").take_while(|line| !line.is_empty()) {
        match (line.split_once(':'), fields.last_mut()) {
            (_, Some((_, value))) if line.starts_with([' ', '\t']) => value.push_str(line),
            (Some((name, value)), _) => fields.push((name.to_owned(), value.trim().to_owned())),
            (None, _) => panic!("not a header line: {line:?}"),
        }
    }
    fields
}

/// The value of the first field of this name, in any case of letters.
pub fn field(message: &[u8], name: &str) -> Option<String> {
    let same = |(found, value): (String, String)| found.eq_ignore_ascii_case(name).then_some(value);
    header(message).into_iter().find_map(same)
}

/// The original inside a report, and the media type it has: `message/rfc822` or
/// `text/rfc822-headers`.
pub fn embedded(report: &[u8]) -> Option<(String, Vec<u8>)> {
    let kind = field(report, "Content-Type")?;
    let boundary = kind.split_once("boundary=")?.1.trim_start_matches('"');
    let boundary = boundary.split(['"', ';']).next()?;
    let text = String::from_utf8_lossy(report);
    for part in text.split(&format!("\r\n--{boundary}")).skip(1) {
        let Some((head, body)) = part.split_once("\r\n\r\n") else { continue };
        let head = head.strip_prefix("\r\n").unwrap_or_default();
        let kind = field(head.as_bytes(), "Content-Type").unwrap_or_default();
        let kind = kind.split(';').next()?.trim().to_ascii_lowercase();
        if kind == "message/rfc822" || kind == "text/rfc822-headers" {
            return Some((kind, body.as_bytes().to_vec()));
        }
    }
    None
}

/// The machine-readable part of a delivery status notification.
pub fn delivery_status(report: &[u8]) -> String {
    let text = String::from_utf8_lossy(report);
    let part = text
        .split("\r\n--")
        .find(|part| part.to_ascii_lowercase().contains("content-type: message/delivery-status"));
    part.unwrap_or_default().to_owned()
}

#[test]
fn the_original_of_a_report_is_found() {
    let report = forged_bounce("victim@victim.example", "7");
    let (kind, original) = embedded(report.as_bytes()).unwrap();
    assert_eq!(kind, "message/rfc822");
    assert_eq!(field(&original, "message-id").unwrap(), "<original-7@sender.example>");
    assert!(delivery_status(report.as_bytes()).contains("Action: failed"));
}

#[test]
fn what_was_put_on_top_is_told_from_what_was_changed() {
    let before = letter("a@far.example", "b@ours.example", "1");
    let after = format!("Received: by x\r\n\twith y\r\nX-Trace: z\r\n{before}");
    let added = put_on_top(before.as_bytes(), after.as_bytes()).unwrap();
    let names: Vec<&str> = added.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Received", "X-Trace"]);
    let changed = after.replace("Hello", "hello");
    assert_eq!(put_on_top(before.as_bytes(), changed.as_bytes()), None);
}
