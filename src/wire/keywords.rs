//! What an SMTP server offers in EHLO, and what may be promised when several stand behind.
//!
//! Takes: EHLO replies of next hops. Gives: `Keywords`, and their meet. Hop-by-hop keywords
//! (PIPELINING, ENHANCEDSTATUSCODES, XFORWARD, STARTTLS, AUTH) are ours; end-to-end ones are
//! promised only when every next hop does. Law 11.
//! Standards: RFC 5321 §4.1.1.1, RFC 1870, RFC 6152, RFC 6531, RFC 3461, RFC 8689, RFC 2852,
//! RFC 6710.

use std::collections::BTreeMap;

use crate::mail::envelope::Parameters;
use crate::mail::reply::Reply;

/// End-to-end keywords without a value that counts.
const PLAIN: &[&str] = &["8BITMIME", "SMTPUTF8", "DSN", "REQUIRETLS"];

/// EHLO keywords with what stands behind them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keywords(BTreeMap<String, String>);

impl Keywords {
    /// Reads an EHLO reply; the first line is the greeting and no keyword.
    pub fn from_reply(reply: &Reply) -> Keywords {
        let mut keywords = BTreeMap::new();
        for line in reply.wire().split(|&byte| byte == b'\n').skip(1) {
            let Some(Ok(text)) = line.get(4..).map(std::str::from_utf8) else { continue };
            // Why: `AUTH=LOGIN` is the form of servers before RFC 4954.
            let (keyword, value) = text.trim().split_once([' ', '=']).unwrap_or((text.trim(), ""));
            if !keyword.is_empty() {
                keywords.insert(keyword.to_ascii_uppercase(), value.trim().to_owned());
            }
        }
        Keywords(keywords)
    }

    /// What stands behind the keyword (upper case); `None` when it is not offered.
    pub fn value(&self, keyword: &str) -> Option<&str> {
        self.0.get(keyword).map(String::as_str)
    }

    /// Whether the keyword (upper case) is offered.
    pub fn has(&self, keyword: &str) -> bool {
        self.0.contains_key(keyword)
    }

    /// The same without this keyword (upper case).
    pub fn without(mut self, keyword: &str) -> Keywords {
        self.0.remove(keyword);
        self
    }

    /// The greatest message in bytes; `None` when there is no bound or none is said.
    pub fn size_bytes_max(&self) -> Option<u64> {
        self.value("SIZE").and_then(|value| value.parse().ok()).filter(|size| *size > 0)
    }

    /// The end-to-end keywords that all of these offer, less `added_bytes` of SIZE for our lines.
    ///
    /// `pass` are further keywords (upper case) that the administrator wants passed on; they stay
    /// when all offer them with the same value. Nothing in, nothing out.
    pub fn meet<'a>(
        all: impl IntoIterator<Item = &'a Keywords> + Clone,
        pass: &[String],
        added_bytes: u64,
    ) -> Keywords {
        let everywhere = |keyword: &str| {
            let mut hops = all.clone().into_iter().peekable();
            hops.peek().is_some() && hops.all(|hop| hop.has(keyword))
        };
        let mut met = BTreeMap::new();
        for keyword in PLAIN.iter().filter(|keyword| everywhere(keyword)) {
            met.insert((*keyword).to_owned(), String::new());
        }
        if everywhere("SIZE") {
            let smallest = all.clone().into_iter().filter_map(Keywords::size_bytes_max).min();
            let left = smallest.map(|size| size.saturating_sub(added_bytes).max(1));
            met.insert("SIZE".to_owned(), left.unwrap_or(0).to_string());
        }
        if everywhere("DELIVERBY") {
            let shortest = |hop: &Keywords| hop.value("DELIVERBY").and_then(|v| v.parse().ok());
            let value: Option<u64> = all.clone().into_iter().filter_map(shortest).max();
            let value = value.map(|seconds| seconds.to_string()).unwrap_or_default();
            met.insert("DELIVERBY".to_owned(), value);
        }
        for keyword in pass.iter().map(String::as_str).chain(["MT-PRIORITY"]) {
            let mut values = all.clone().into_iter().map(|hop| hop.value(keyword));
            if let Some(Some(first)) = values.next()
                && values.all(|value| value == Some(first))
            {
                met.insert(keyword.to_owned(), first.to_owned());
            }
        }
        Keywords(met)
    }

    /// The lines of an EHLO reply, without code.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(keyword, value)| match value.is_empty() {
            true => keyword.clone(),
            false => format!("{keyword} {value}"),
        })
    }

    /// The first parameter that these keywords do not allow; `None` when all are allowed.
    pub fn not_allowed<'p>(&self, parameters: &'p Parameters) -> Option<&'p str> {
        let mut parameters = parameters.iter();
        let refused = parameters.find(|parameter| {
            let keyword = parameter.keyword.as_str();
            !needed_for(keyword, parameter.value()).is_none_or(|needed| self.has(needed))
        });
        refused.map(|parameter| parameter.keyword.as_str())
    }
}

/// The EHLO keyword that a parameter of MAIL or RCPT needs; `None` when it needs none.
fn needed_for<'p>(parameter: &'p str, value: Option<&str>) -> Option<&'p str> {
    match parameter {
        "BODY" if value.is_some_and(|value| value.eq_ignore_ascii_case("7BIT")) => None,
        "BODY" if value.is_some_and(|value| value.eq_ignore_ascii_case("8BITMIME")) => {
            Some("8BITMIME")
        }
        "BODY" => Some("BINARYMIME"),
        "RET" | "ENVID" | "NOTIFY" | "ORCPT" => Some("DSN"),
        "BY" => Some("DELIVERBY"),
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::envelope::Parameter;

    fn keywords(lines: &[&str]) -> Keywords {
        let greeting = ["mx.example"].iter().chain(lines).collect::<Vec<_>>();
        Keywords::from_reply(&Reply::lines(250, &greeting))
    }

    fn met(hops: &[Keywords]) -> Vec<String> {
        Keywords::meet(hops, &["XFOO".to_owned()], 100).lines().collect()
    }

    #[test]
    fn only_what_all_offer_is_promised() {
        let full = ["PIPELINING", "SIZE 5000", "8bitmime", "DSN", "SMTPUTF8", "XFOO a", "STARTTLS"];
        let full = keywords(&full);
        let small = keywords(&["SIZE 1000", "8BITMIME", "XFOO b", "AUTH PLAIN", "CHUNKING"]);
        let bare = keywords(&[]);
        assert_eq!(
            met(std::slice::from_ref(&full)),
            ["8BITMIME", "DSN", "SIZE 4900", "SMTPUTF8", "XFOO a",]
        );
        assert_eq!(met(&[full.clone(), small]), ["8BITMIME", "SIZE 900"]);
        assert!(met(&[full, bare]).is_empty());
        assert!(met(&[]).is_empty());
    }

    #[test]
    fn a_size_without_bound_stays_without_bound() {
        let open = keywords(&["SIZE"]);
        assert_eq!(met(&[open.clone(), keywords(&["SIZE 0"])]), ["SIZE 0"]);
        assert_eq!(met(&[open, keywords(&["SIZE 50"])]), ["SIZE 1"]);
    }

    #[test]
    fn the_longest_shortest_time_holds_everywhere() {
        let hops = [keywords(&["DELIVERBY 60"]), keywords(&["DELIVERBY 240"])];
        assert_eq!(met(&hops), ["DELIVERBY 240"]);
    }

    #[test]
    fn a_parameter_needs_its_keyword() {
        let parameters = |texts: &[&str]| {
            let parameter = |text: &&str| Parameter {
                keyword: text.split('=').next().unwrap().to_owned(),
                text: (*text).to_owned(),
            };
            Parameters::new(texts.iter().map(parameter).collect())
        };
        let offered = keywords(&["SIZE 10", "DSN", "XFOO"]);
        let asked = parameters(&["SIZE=5", "RET=HDRS", "ORCPT=rfc822;a", "XFOO=1", "BODY=7BIT"]);
        assert_eq!(offered.not_allowed(&asked), None);
        for refused in ["BODY=8BITMIME", "BODY=BINARYMIME", "SMTPUTF8", "BY=1;R", "AUTH=<>"] {
            assert!(offered.not_allowed(&parameters(&[refused])).is_some(), "{refused}");
        }
    }
}
