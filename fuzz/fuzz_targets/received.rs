//! Received lines: any text is read; what a client calls itself never becomes its address.
#![no_main]

use libfuzzer_sys::fuzz_target;
use replyguard::judge::border::walk;
use replyguard::judge::site::Site;
use replyguard::mail::received::Received;

/// The characters that Postfix leaves in a HELO name: its `NEUTER_CHARACTERS` become `?`.
fn helo(text: &str) -> String {
    let kept = |c: char| if c.is_ascii_graphic() && !"<>()\\\";:@".contains(c) { c } else { '?' };
    text.chars().map(kept).take(200).collect()
}

fuzz_target!(|text: &str| {
    let line = Received::parse(text);
    let site = Site { hosts: ["mx.example".to_owned()].into(), ..Site::default() };
    let lines = text.split('\n').map(Received::parse);
    let border = walk(lines, &site);
    assert!(border.believed <= text.split('\n').count());
    // A client has an address that stands in the line, unless an IPv6 form of it does.
    if let Some(client) = line.client()
        && client.ip.is_ipv4()
        && !text.contains(':')
    {
        assert!(text.contains(&client.ip.to_string()), "{}", client.ip);
    }
    let helo = helo(text);
    // Exim and Exchange take names and address literals only.
    let name: String =
        helo.chars().filter(|c| c.is_ascii_alphanumeric() || "-.[]".contains(*c)).collect();
    if !name.is_empty() {
        for line in [
            format!("from {helo} (unknown [192.0.2.1]) by mx.example (Postfix) with ESMTP id 1A"),
            format!("from {helo} (c.example [192.0.2.1]) by mx.example (Postfix) with SMTP id 1A"),
            format!("from [192.0.2.1] (helo={name}) by mx.example with esmtp (Exim 4.96) id 1A"),
            format!("from c.example ([192.0.2.1] helo={name}) by mx.example with esmtps id 1A"),
            format!("from {name} (192.0.2.1) by mx.example with Microsoft SMTP Server id 15.2"),
        ] {
            let read = Received::parse(&format!("{line}; Sat, 12 Sep 2020 12:00:00 +0000"));
            let ip = read.client().map(|client| client.ip.to_string());
            assert_eq!(ip.as_deref(), Some("192.0.2.1"), "{line}");
            assert_eq!(read.by.as_deref(), Some("mx.example"), "{line}");
        }
    }
});
