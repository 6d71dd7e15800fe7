//! What Exim posts of inbound mail from its ACL for DATA: one line of words, most of them in
//! Base64, because nothing else that its expansions make is safe from what strangers write.
//!
//! Takes: `id=… ip=… host=… helo=… from=… rcpt=… auth=… header=… results=…`, in any order. Gives:
//! `Posted`: what a tap would have seen, and what Exim found out of the signatures. Errors:
//! `PostedFault`, for whoever wrote the ACL. Bounds: the caller's, on the bytes.
//! Standards: RFC 8601 §2.2 (`results` is an Authentication-Results field, `${authresults{…}}`).

use std::collections::BTreeMap;

use mail_parser::decoders::base64::base64_decode;

use crate::judge::evidence::AuthResult;
use crate::judge::posted::{Posted, PostedFault, Said, with_crlf};
use crate::mail::address::Domain;
use crate::mail::authres::{AuthResults, MethodResult};

/// The words there are, with whether they stand as they are.
const WORDS: [(&str, Coded); 9] = [
    ("id", Coded::Plain),
    ("ip", Coded::Plain),
    ("host", Coded::Base64),
    ("helo", Coded::Base64),
    ("from", Coded::Base64),
    ("rcpt", Coded::Base64),
    ("auth", Coded::Base64),
    ("header", Coded::Base64),
    ("results", Coded::Base64),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Coded {
    Plain,
    Base64,
}

/// Reads what Exim posts.
pub fn exim(text: &[u8]) -> Result<Posted, PostedFault> {
    let text = String::from_utf8_lossy(text);
    let mut words = BTreeMap::new();
    for word in text.split_ascii_whitespace() {
        let fault = || PostedFault::PeerWord(word.chars().take(20).collect());
        let (key, value) = word.split_once('=').ok_or_else(fault)?;
        let (key, coded) = WORDS.iter().find(|(known, _)| *known == key).ok_or_else(fault)?;
        let value = match coded {
            Coded::Plain => value.to_owned(),
            Coded::Base64 if value.is_empty() => String::new(),
            Coded::Base64 => {
                let bytes = base64_decode(value.as_bytes()).ok_or_else(fault)?;
                String::from_utf8_lossy(&bytes).into_owned()
            }
        };
        words.insert(*key, value);
    }
    let mut take = |key: &str| words.remove(key);
    let missing = |key: &'static str| move || PostedFault::PeerMissing(key);
    let mail_from = take("from").ok_or_else(missing("from"))?;
    let recipients = take("rcpt").ok_or_else(missing("rcpt"))?;
    let header = take("header").ok_or_else(missing("header"))?;
    let mut filled = |key: &str| take(key).filter(|value| !value.is_empty());
    Ok(Posted {
        host: filled("host"),
        queue_id: filled("id"),
        client: filled("ip").and_then(|ip| ip.parse().ok()),
        helo: filled("helo").unwrap_or_default(),
        authenticated: filled("auth"),
        mail_from,
        recipients: recipients.split(',').map(|to| to.trim().to_owned()).collect(),
        header: with_crlf(&format!("{}\n\n", header.trim_end())),
        said: filled("results").and_then(|results| signatures(&results)),
        ..Posted::default()
    })
}

/// What Exim says of the signatures. Why not of SPF, should it say that: it says too little of whom
/// the record lets in.
fn signatures(results: &str) -> Option<Said> {
    let value = results.split_once(':').map_or(results, |(_name, value)| value);
    let results = AuthResults::parse(value.as_bytes()).ok()?;
    let signature = |result: &MethodResult| {
        let domain = result.property("header", "d").and_then(Domain::parse);
        // Exim says `invalid` of what it cannot verify.
        (AuthResult::parse(&result.result).unwrap_or(AuthResult::PermError), domain)
    };
    Some(Said { dkim: Some(results.of("dkim").map(signature).collect()), ..Said::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `from=joe@far.example` with its value in Base64, and a few bytes that need it.
    const LINE: &str = "id=1vM2Hp-0004Ku-1k ip=192.0.2.55 host=bXgub3Vycy5leGFtcGxl \
        helo=eA== from=am9lQGZhci5leGFtcGxl \
        rcpt=YWxpY2VAb3Vycy5leGFtcGxlLCBib2JAb3Vycy5leGFtcGxl auth= \
        header=RnJvbTogam9lQGZhci5leGFtcGxlClRvOiB4Cg== \
        results=QXV0aGVudGljYXRpb24tUmVzdWx0czogbXgub3Vycy5leGFtcGxlOw0KCWRraW09cGFzcyBoZWFkZXIuZD1mYXIuZXhhbXBsZSBoZWFkZXIucz1z";

    #[test]
    fn what_exim_posts_is_read() {
        let posted = exim(LINE.as_bytes()).unwrap();
        assert_eq!(posted.queue_id.as_deref(), Some("1vM2Hp-0004Ku-1k"));
        assert_eq!(posted.client, Some("192.0.2.55".parse().unwrap()));
        assert_eq!(posted.host.as_deref(), Some("mx.ours.example"));
        assert_eq!((posted.mail_from.as_str(), posted.authenticated), ("joe@far.example", None));
        assert_eq!(posted.recipients, ["alice@ours.example", "bob@ours.example"]);
        assert_eq!(posted.header, "From: joe@far.example\r\nTo: x\r\n\r\n");
        let said = posted.said.unwrap();
        assert_eq!(said.dkim, Some(vec![(AuthResult::Pass, Domain::parse("far.example"))]));
        assert_eq!((said.spf, said.dmarc), (None, None));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let from = LINE.replace("from=am9l", "from=*am9l");
        for (line, fault) in [
            ("", "`from` is missing"),
            ("from= rcpt=", "`header` is missing"),
            ("from", "\"from\" is none of our words"),
            ("form=x", "\"form=x\" is none of our words"),
            (&from, "\"from=*am9lQGZhci5leG\" is none of our words"),
        ] {
            assert_eq!(exim(line.as_bytes()).unwrap_err().to_string(), fault);
        }
    }
}
