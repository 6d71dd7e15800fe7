//! What other programs post of inbound mail: our own JSON, and rspamd's metadata exporter.
//!
//! Takes: JSON. Gives: `Posted`: what a tap would have seen, and what the program found out.
//! Errors: `PostedFault`, for whoever wrote the program. Bounds: the caller's, on the bytes; those
//! of `Inbound::within_limits` on the record.
//! Standards: RFC 8601 §2.7 (result words); rspamd's `metadata_exporter`, formatter `json`.

use std::net::IpAddr;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use crate::judge::alignment::is_signed_near;
use crate::judge::arrival::Arrival;
use crate::judge::evidence::{
    AuthResult, DkimFinding, DmarcFinding, Evaluated, Findings, Source, SpfFinding,
};
use crate::judge::subject::{Inbound, SpamScore, State, Way};
use crate::mail::address::{Address, Domain, ReversePath};
use crate::mail::author::Author;
use crate::mail::raw::split;

/// Why a text is none of ours.
#[derive(Debug, thiserror::Error)]
pub enum PostedFault {
    /// No JSON, or a field is missing, unknown or of another type.
    #[error("{0}")]
    PeerJson(#[from] serde_json::Error),
    /// A word that is no result.
    #[error("{0:?} is no result: pass, fail, softfail, neutral, none, temperror, permerror")]
    PeerResult(String),
    /// A word of Exim's line that is none of ours, or not in Base64; its beginning.
    #[error("{0:?} is none of our words")]
    PeerWord(String),
    /// A word that must be there.
    #[error("`{0}` is missing")]
    PeerMissing(&'static str),
}

/// A message as another program saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Posted {
    /// The host that took it, in its own words.
    pub host: Option<String>,
    /// Its queue id there.
    pub queue_id: Option<String>,
    /// The client.
    pub client: Option<IpAddr>,
    /// What the client called itself.
    pub helo: String,
    /// Who authenticated.
    pub authenticated: Option<String>,
    /// The argument of MAIL; empty for the null reverse-path.
    pub mail_from: String,
    /// ENVID, decoded.
    pub envelope_id: Option<String>,
    /// The arguments of RCPT.
    pub recipients: Vec<String>,
    /// The header.
    pub header: Bytes,
    /// The spam score.
    pub spam: Option<SpamScore>,
    /// What it found out; `None` when it did not look.
    pub said: Option<Said>,
}

/// Results of another program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// SPF of MAIL FROM; `None` when it did not look.
    pub spf: Option<AuthResult>,
    /// The term that let everybody in.
    pub everybody: Option<String>,
    /// DKIM, one for each signature; `None` when it did not look.
    pub dkim: Option<Vec<(AuthResult, Option<Domain>)>>,
    /// DMARC of the From domain.
    pub dmarc: Option<AuthResult>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    host: Option<String>,
    queue_id: Option<String>,
    client_ip: Option<IpAddr>,
    #[serde(default)]
    helo: String,
    authenticated: Option<String>,
    mail_from: String,
    envelope_id: Option<String>,
    recipients: Vec<String>,
    header: String,
    spam_score: Option<f64>,
    spf: Option<String>,
    dkim: Option<Vec<OwnDkim>>,
    dmarc: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnDkim {
    result: String,
    domain: String,
}

/// Reads our own JSON.
pub fn own(json: &[u8]) -> Result<Posted, PostedFault> {
    let own: Own = serde_json::from_slice(json)?;
    let result = |word: &String| {
        AuthResult::parse(word).ok_or_else(|| PostedFault::PeerResult(word.clone()))
    };
    let looked = own.spf.is_some() || own.dkim.is_some() || own.dmarc.is_some();
    let signature = |dkim: &OwnDkim| Ok((result(&dkim.result)?, Domain::parse(&dkim.domain)));
    let dkim = own.dkim.as_ref().map(|all| all.iter().map(signature).collect());
    let said = Said {
        spf: own.spf.as_ref().map(result).transpose()?,
        everybody: None,
        dkim: dkim.transpose().map_err(|fault: PostedFault| fault)?,
        dmarc: own.dmarc.as_ref().map(result).transpose()?,
    };
    Ok(Posted {
        host: own.host,
        queue_id: own.queue_id,
        client: own.client_ip,
        helo: own.helo,
        authenticated: own.authenticated,
        mail_from: own.mail_from,
        envelope_id: own.envelope_id,
        recipients: own.recipients,
        header: with_crlf(&own.header),
        spam: own.spam_score.and_then(score),
        said: looked.then_some(said),
    })
}

#[derive(Deserialize)]
struct Rspamd {
    #[serde(default)]
    ip: Value,
    #[serde(default)]
    user: Value,
    #[serde(default)]
    qid: Value,
    #[serde(default)]
    from: Value,
    #[serde(default)]
    rcpt: Value,
    #[serde(default)]
    message_id: Value,
    #[serde(default)]
    header_from: Value,
    score: f64,
    #[serde(default)]
    symbols: Value,
}

/// Reads what rspamd's metadata exporter posts.
pub fn rspamd(json: &[u8]) -> Result<Posted, PostedFault> {
    let posted: Rspamd = serde_json::from_slice(json)?;
    let mut header = String::new();
    for from in texts(&posted.header_from) {
        header.push_str(&format!("From: {}\n", one_line(&from)));
    }
    if let Some(id) = text(&posted.message_id) {
        header.push_str(&format!("Message-ID: <{}>\n", one_line(&id)));
    }
    header.push('\n');
    let rcpt = match &posted.rcpt {
        Value::String(list) => list.split(',').map(|to| to.trim().to_owned()).collect(),
        other => texts(other),
    };
    Ok(Posted {
        queue_id: text(&posted.qid),
        client: text(&posted.ip).and_then(|ip| ip.parse().ok()),
        authenticated: text(&posted.user),
        mail_from: text(&posted.from).unwrap_or_default(),
        recipients: rcpt,
        header: with_crlf(&header),
        spam: score(posted.score),
        said: Some(symbols(&posted.symbols)),
        ..Posted::default()
    })
}

/// rspamd's symbols and what they say. DKIM_TRACE has an option for each signature, its domain and
/// a sign.
fn symbols(symbols: &Value) -> Said {
    let mut said = Said::default();
    for symbol in symbols.as_array().into_iter().flatten() {
        let options = texts(symbol.get("options").unwrap_or(&Value::Null));
        match symbol.get("name").and_then(Value::as_str).unwrap_or_default() {
            "R_SPF_ALLOW" => {
                said.spf = Some(AuthResult::Pass);
                let is_wide = |term: &&String| {
                    let term = term.trim_start_matches('+');
                    term == "all" || term.starts_with("exists") || term.starts_with("ptr")
                };
                said.everybody = options.iter().find(is_wide).cloned();
            }
            "R_SPF_FAIL" => said.spf = Some(AuthResult::Fail),
            "R_SPF_SOFTFAIL" => said.spf = Some(AuthResult::SoftFail),
            "R_SPF_NEUTRAL" => said.spf = Some(AuthResult::Neutral),
            "R_SPF_NA" => said.spf = Some(AuthResult::None),
            "R_SPF_DNSFAIL" => said.spf = Some(AuthResult::TempError),
            "R_SPF_PERMFAIL" => said.spf = Some(AuthResult::PermError),
            "R_DKIM_NA" => said.dkim = Some(Vec::new()),
            "DKIM_TRACE" => said.dkim = Some(options.iter().map(|o| signature(o)).collect()),
            "DMARC_POLICY_ALLOW" | "DMARC_POLICY_ALLOW_WITH_FAILURES" => {
                said.dmarc = Some(AuthResult::Pass);
            }
            "DMARC_POLICY_REJECT" | "DMARC_POLICY_QUARANTINE" | "DMARC_POLICY_SOFTFAIL" => {
                said.dmarc = Some(AuthResult::Fail);
            }
            "DMARC_NA" => said.dmarc = Some(AuthResult::None),
            "DMARC_DNSFAIL" => said.dmarc = Some(AuthResult::TempError),
            "DMARC_BAD_POLICY" => said.dmarc = Some(AuthResult::PermError),
            _ => {}
        }
    }
    said
}

/// `example.org:+`: passed; `-` failed, `?` DNS trouble, `~` a record that cannot be used.
fn signature(option: &str) -> (AuthResult, Option<Domain>) {
    let (domain, sign) = option.rsplit_once(':').unwrap_or((option, ""));
    let result = match sign {
        "+" => AuthResult::Pass,
        "-" => AuthResult::Fail,
        "?" => AuthResult::TempError,
        _ => AuthResult::PermError,
    };
    (result, Domain::parse(domain))
}

/// The complete record of a message that another program verified.
pub fn complete(arrival: Arrival, header: &[u8], said: &Said, spam: Option<SpamScore>) -> Inbound {
    let Arrival { mut record, gateways, .. } = arrival;
    record.state = State::Complete;
    record.spam = spam.or(record.spam);
    if record.way == Way::Reinjected {
        return record;
    }
    let author = Author::of(&split(header).0);
    let address = record.mail_from.address().cloned();
    let spf = said.spf.filter(|_| address.is_some()).map(|result| SpfFinding {
        address: address.clone(),
        everybody: said.everybody.clone(),
        ..SpfFinding::of(result, address.as_ref().and_then(Address::domain).cloned())
    });
    let dkim =
        said.dkim.iter().flatten().map(|(result, domain)| DkimFinding::of(*result, domain.clone()));
    let dkim: Vec<DkimFinding> = dkim.collect();
    let domain = author.mailboxes.first().filter(|_| author.sign.is_none());
    let domain = domain.and_then(Address::domain);
    let dmarc = said
        .dmarc
        .zip(domain)
        .map(|(result, domain)| DmarcFinding { result, from_domain: Some(domain.clone()) });
    // Why: a pass that rests on SPF of another address proves an author whom nothing proves.
    let stands = |dmarc: &DmarcFinding| {
        dmarc.result != AuthResult::Pass
            || domain.is_some_and(|domain| is_signed_near(&dkim, domain))
            || address.as_ref().is_some_and(|address| {
                said.everybody.is_none()
                    && author.mailboxes.iter().all(|from| from.same_mailbox(address))
            })
    };
    let own_submission = match &record.way {
        Way::OwnSubmission(sign) => Some(sign.clone()),
        Way::Outside | Way::Reinjected | Way::BehindRelay(_) => None,
    };
    let findings = Findings {
        mail_from: Some(record.mail_from.clone()),
        from: author.mailboxes.clone(),
        sender: record.sender.clone(),
        evaluated: Evaluated {
            spf: spf.is_some(),
            dkim: said.dkim.is_some(),
            dmarc: dmarc.is_some(),
        },
        spf: spf.into_iter().collect(),
        dmarc: dmarc.filter(stands).into_iter().collect(),
        dkim: dkim.clone(),
        own_submission,
        author_sign: author.sign,
        ..Findings::of(Source::Tap)
    };
    record.findings = std::iter::once(findings).chain(gateways).collect();
    record.within_limits()
}

/// The argument of MAIL as a path. What cannot be read is null: no answer goes to it.
pub fn path(mail_from: &str) -> ReversePath {
    Address::parse(mail_from).map_or(ReversePath::Null, ReversePath::Address)
}

/// A text; rspamd writes "unknown" and "undef" for what it does not know.
fn text(value: &Value) -> Option<String> {
    let text = value.as_str().filter(|text| !matches!(*text, "" | "unknown" | "undef"));
    text.map(str::to_owned)
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(list) => list.iter().filter_map(text).collect(),
        other => text(other).into_iter().collect(),
    }
}

fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

/// With the line ends of a message.
pub fn with_crlf(text: &str) -> Bytes {
    Bytes::from(text.replace("\r\n", "\n").replace('\n', "\r\n"))
}

fn score(number: f64) -> Option<SpamScore> {
    SpamScore::parse(&format!("{number:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::arrival::{Seen, arrival};
    use crate::judge::site::Site;
    use crate::judge::subject::{InboundId, TapKind};
    use crate::mail::time::Timestamp;

    fn recorded(posted: &Posted) -> Inbound {
        let address = |text: &String| Address::parse(text);
        let seen = Seen {
            id: InboundId::from_u128(1),
            tap: TapKind::Http,
            host: posted.host.clone().unwrap_or_default(),
            queue_id: posted.queue_id.clone(),
            began: Timestamp::from_millis(1),
            arrived: Timestamp::from_millis(2),
            client: posted.client,
            helo: posted.helo.clone(),
            authenticated: posted.authenticated.clone(),
            mail_from: path(&posted.mail_from),
            envelope_id: None,
            recipients: posted.recipients.iter().filter_map(address).collect(),
            message: posted.header.clone(),
            spam_field: None,
        };
        let site = Site { hosts: ["mx.ours.example".to_owned()].into(), ..Site::default() };
        let said = posted.said.clone().unwrap_or_default();
        complete(arrival(&seen, &site), &posted.header, &said, posted.spam)
    }

    const RSPAMD: &str = r#"{"ip":"192.0.2.55","user":"unknown","qid":"4ABC","subject":"x",
        "action":"no action","score":1.25,"rcpt":["alice@ours.example"],"from":"joe@far.example",
        "message_id":"1@far.example","header_from":["Joe <joe@far.example>"],"header_to":"unknown",
        "symbols":[{"name":"R_SPF_ALLOW","score":-0.2,"options":["+ip4:192.0.2.55"]},
        {"name":"DKIM_TRACE","score":0,"options":["far.example:+","other.example:-"]},
        {"name":"R_DKIM_ALLOW","options":["far.example:s=s"]},
        {"name":"DMARC_POLICY_ALLOW","score":-0.5,"options":["far.example","reject"]}]}"#;

    #[test]
    fn what_rspamd_posts_becomes_a_record() {
        let record = recorded(&rspamd(RSPAMD.as_bytes()).unwrap());
        assert_eq!(record.queue_id.as_deref(), Some("4ABC"));
        assert_eq!(record.message_ids, ["1@far.example"]);
        assert_eq!(record.spam, SpamScore::parse("1.25"));
        let findings = &record.findings[0];
        assert_eq!(findings.spf[0].result, AuthResult::Pass);
        assert_eq!(findings.dkim.len(), 2);
        assert_eq!(findings.dkim[1].result, AuthResult::Fail);
        assert_eq!(findings.dmarc[0].result, AuthResult::Pass);
        assert_eq!(findings.evaluated, Evaluated::ALL);
        assert_eq!((record.state, findings.own_submission.as_ref()), (State::Complete, None));
    }

    #[test]
    fn rspamds_passes_prove_no_more_than_ours() {
        let wide = RSPAMD.replace("+ip4:192.0.2.55", "+all");
        let record = recorded(&rspamd(wide.as_bytes()).unwrap());
        assert_eq!(record.findings[0].spf[0].everybody.as_deref(), Some("+all"));
        let unsigned = RSPAMD.replace("far.example:+", "else.example:+");
        let other = unsigned.replace("Joe <joe@far.example>", "ceo@far.example");
        let record = recorded(&rspamd(other.as_bytes()).unwrap());
        assert!(record.findings[0].dmarc.is_empty());
        let nothing = recorded(&rspamd(br#"{"score":0,"symbols":{}}"#).unwrap());
        assert_eq!(nothing.findings[0].evaluated, Evaluated::default());
    }

    #[test]
    fn our_own_form_is_read_and_what_is_wrong_is_said() {
        let json = r#"{"host":"mx.ours.example","queue_id":"1","client_ip":"192.0.2.55","helo":"x",
            "mail_from":"joe@far.example","recipients":["alice@ours.example"],
            "header":"From: joe@far.example\nMessage-ID: <1@far.example>\n\n","spam_score":-2,
            "spf":"softfail","dkim":[{"result":"pass","domain":"far.example"}]}"#;
        let posted = own(json.as_bytes()).unwrap();
        let record = recorded(&posted);
        assert_eq!(record.findings[0].spf[0].result, AuthResult::SoftFail);
        assert!(!record.findings[0].evaluated.dmarc);
        assert_eq!(record.spam, SpamScore::parse("-2"));
        let bare = r#"{"mail_from":"","recipients":[],"header":""}"#;
        assert_eq!(own(bare.as_bytes()).unwrap().said, None);
        for wrong in ["", "{}", &json.replace("softfail", "maybe"), &json.replace("helo", "hello")]
        {
            assert!(own(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_posted_line_end_begins_no_field() {
        let json = RSPAMD.replace("Joe <joe@far.example>", "x@y.example\\r\\nSender: z@w.example");
        let record = recorded(&rspamd(json.as_bytes()).unwrap());
        assert_eq!(record.sender, None);
    }
}
