//! The Authentication-Results that a tap writes on top of a message, and the forged ones it takes
//! out.
//!
//! Takes: our authserv-id, what was found, the fields that stand there. Gives: `Edits`.
//! Bounds: a field has as many results as its record. Standards: RFC 8601 §2.2, §5 and §7.1.
//!
//! What a peer chose is written only where it is a plain word: nothing of it can end a result or
//! begin another.

use bytes::Bytes;

use crate::guard::tap::{Results, Taken};
use crate::judge::evidence::{AuthResult, Source, SpfScope};
use crate::judge::subject::Way;
use crate::mail::address::Address;
use crate::mail::authres::AuthResults;
use crate::wire::milter_session::Edits;

/// The edits for a message that was taken in. `fields`: the values of its Authentication-Results,
/// as many as were kept; `count`: how many there are.
pub fn edits(authserv_id: &str, taken: &Taken, fields: &[Bytes], count: u32) -> Edits {
    // Why: lines of ours stand in what an inside host gives back.
    if taken.is_from_inside {
        return Edits::default();
    }
    let kept = (1..).zip(fields);
    let forged = kept.filter(|(_, value)| is_of(authserv_id, value)).map(|(number, _)| number);
    // Why those too that were not kept: nobody knows whose they are.
    let unknown = u32::try_from(fields.len()).unwrap_or(u32::MAX)..count;
    let deleted = forged.chain(unknown.map(|number| number + 1)).collect();
    let is_ours = matches!(taken.way, Way::OwnSubmission(_));
    let inserted = taken.results.as_ref().filter(|_| !is_ours);
    Edits { deleted, inserted: inserted.map(|results| value(authserv_id, results)) }
}

/// Whether a field is of this authserv-id. What cannot be read is, when the id stands in front:
/// others may read more into it than we do.
fn is_of(authserv_id: &str, value: &[u8]) -> bool {
    match AuthResults::parse(value) {
        Ok(results) => results.authserv_id.eq_ignore_ascii_case(authserv_id),
        Err(_) => {
            let text = String::from_utf8_lossy(value).to_ascii_lowercase();
            let front = text.split(';').next().unwrap_or_default();
            front.contains(&authserv_id.to_ascii_lowercase())
        }
    }
}

/// The value of the field: one line for each result.
fn value(authserv_id: &str, results: &Results) -> String {
    let findings = results.record.findings.iter().find(|found| found.source == Source::Tap);
    let mut said = Vec::new();
    for spf in findings.iter().flat_map(|findings| &findings.spf) {
        let identity = match spf.scope {
            SpfScope::MailFrom => spf.address.as_ref().and_then(plain).map(|a| ("mailfrom", a)),
            SpfScope::Helo | SpfScope::Unnamed => None,
        };
        let domain = || spf.domain.as_ref().map(|domain| ("mailfrom", domain.to_string()));
        // Why: who reads the line back cannot see what a pass rests on.
        let result = match spf.result {
            AuthResult::Pass if spf.guessed => AuthResult::None,
            AuthResult::Pass if spf.everybody.is_some() => AuthResult::Policy,
            result => result,
        };
        if let Some((name, value)) = identity.or_else(domain) {
            said.push(format!("spf={result} smtp.{name}={value}"));
        }
    }
    for dkim in findings.iter().flat_map(|findings| &findings.dkim) {
        if let Some(domain) = &dkim.domain {
            said.push(format!("dkim={} header.d={domain}", dkim.result));
        }
    }
    if let Some(dmarc) = &results.dmarc
        && let Some(domain) = &dmarc.from_domain
    {
        said.push(format!("dmarc={} header.from={domain}", dmarc.result));
    }
    if said.is_empty() {
        said.push("none".to_owned());
    }
    format!("{authserv_id};\n\t{}", said.join(";\n\t"))
}

/// `local@domain`, where the local part is a plain word.
fn plain(address: &Address) -> Option<String> {
    let is_plain =
        |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/?^_`{|}~.".contains(&byte);
    let local = Some(address.local()).filter(|local| local.bytes().all(is_plain))?;
    Some(format!("{local}@{}", address.domain()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::arrival::{Seen, arrival};
    use crate::judge::evidence::{AuthResult, DkimFinding, DmarcFinding, Findings, SpfFinding};
    use crate::judge::site::Site;
    use crate::judge::subject::{InboundId, TapKind};
    use crate::mail::address::ReversePath;
    use crate::mail::time::Timestamp;

    const ID: &str = "mx.ours.example";

    fn taken(mail_from: &str) -> Taken {
        let address = Address::parse(mail_from).unwrap();
        let seen = Seen {
            id: InboundId::from_u128(1),
            tap: TapKind::Milter,
            host: ID.to_owned(),
            queue_id: None,
            began: Timestamp::from_millis(1),
            arrived: Timestamp::from_millis(2),
            client: Some("192.0.2.55".parse().unwrap()),
            helo: "x".to_owned(),
            authenticated: None,
            mail_from: ReversePath::Address(address.clone()),
            envelope_id: None,
            recipients: Vec::new(),
            message: Bytes::new(),
            spam_field: None,
        };
        let site = Site { hosts: [ID.to_owned()].into(), ..Site::default() };
        let mut record = arrival(&seen, &site).record;
        let spf = SpfFinding {
            address: Some(address.clone()),
            ..SpfFinding::of(AuthResult::Pass, address.domain().cloned())
        };
        let dkim = DkimFinding {
            signs_from: true,
            ..DkimFinding::of(AuthResult::Fail, address.domain().cloned())
        };
        record.findings.push(Findings {
            spf: vec![spf],
            dkim: vec![dkim],
            ..Findings::of(Source::Tap)
        });
        let from_domain = address.domain().cloned();
        let dmarc = Some(DmarcFinding { result: AuthResult::Pass, from_domain });
        let (way, is_from_inside) = (record.way.clone(), false);
        Taken { way, is_from_inside, results: Some(Results { record, dmarc }) }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for (mail_from, said) in [
            ("joe@far.example", "joe@far.example"),
            ("\"a; dkim=pass\"@far.example", "far.example"),
            ("@hop.example:joe@far.example", "joe@far.example"),
        ] {
            let value = edits(ID, &taken(mail_from), &[], 0).inserted.unwrap();
            let read = AuthResults::parse(value.as_bytes()).unwrap();
            assert_eq!(read.authserv_id, ID);
            let methods: Vec<_> =
                read.results.iter().map(|r| (&r.method[..], &r.result[..])).collect();
            assert_eq!(methods, [("spf", "pass"), ("dkim", "fail"), ("dmarc", "pass")]);
            assert_eq!(read.results[0].property("smtp", "mailfrom"), Some(said), "{value}");
        }
    }

    #[test]
    fn a_pass_that_proves_nobody_is_written_as_none() {
        let mut taken = taken("joe@far.example");
        let said = |taken: &Taken| {
            let value = edits(ID, taken, &[], 0).inserted.unwrap();
            AuthResults::parse(value.as_bytes()).unwrap().results[0].result.clone()
        };
        fn spf(taken: &mut Taken) -> &mut SpfFinding {
            &mut taken.results.as_mut().unwrap().record.findings[0].spf[0]
        }
        spf(&mut taken).guessed = true;
        assert_eq!(said(&taken), "none");
        spf(&mut taken).guessed = false;
        spf(&mut taken).everybody = Some("+all".to_owned());
        assert_eq!(said(&taken), "policy");
    }

    #[test]
    fn only_what_claims_to_be_ours_goes() {
        let fields = [
            " other.example; spf=pass smtp.mailfrom=x@y.example",
            " MX.Ours.Example; spf=pass smtp.mailfrom=x@y.example",
            "\n\t\"mx.ours.example\" 1; none",
            " (comment) mx.ours.example.; dkim=pass header.d=x.example",
            " mx.ours.example; broken = = ;;",
            " other.example; spf=pass (mx.ours.example; says so)",
        ];
        let fields = fields.map(|value| Bytes::copy_from_slice(value.as_bytes()));
        assert_eq!(edits(ID, &taken("joe@far.example"), &fields, 6).deleted, [2, 3, 4, 5]);
        assert_eq!(edits(ID, &taken("joe@far.example"), &fields, 8).deleted, [2, 3, 4, 5, 7, 8]);
    }

    #[test]
    fn our_own_mail_gets_no_results_and_what_comes_back_keeps_them() {
        let fields = [Bytes::from_static(b" mx.ours.example; none")];
        let mut own = taken("joe@far.example");
        own.way = Way::OwnSubmission("its client authenticated".to_owned());
        let made = edits(ID, &own, &fields, 1);
        assert_eq!(made, Edits { deleted: vec![1], inserted: None });
        own.is_from_inside = true;
        assert_eq!(edits(ID, &own, &fields, 1), Edits::default());
        let mut late = taken("joe@far.example");
        late.results = None;
        assert_eq!(edits(ID, &late, &fields, 1), Edits { deleted: vec![1], inserted: None });
    }
}
