//! Our own rewritten addresses: whose they were before.
//!
//! Takes: a recipient in a domain of ours. Gives: the address that our forwarder (SRS) or our
//! return-path tagger (BATV) made it from. Nobody else's forms are decoded: what another host means
//! by a local part is its own affair (RFC 5321 §2.3.11).
//! Why it matters: mail to an SRS address of ours leaves again, to somebody who may be forged.

use crate::judge::site::Site;
use crate::mail::address::Address;

/// The address of another domain that this one of ours stands for; `None` for every other.
///
/// One step at a time: `SRS1` gives the `SRS0` address at the first forwarder.
pub fn foreign_original(recipient: &Address, site: &Site) -> Option<Address> {
    if !site.is_local(recipient) {
        return None;
    }
    let original = srs(without_batv(recipient.local()))?;
    (!site.is_local(&original)).then_some(original)
}

/// Whether this address of ours has the form of a rewritten one, and what it stands for cannot be
/// read: our forwarder may still know.
pub fn is_unreadable(recipient: &Address, site: &Site) -> bool {
    let local = without_batv(recipient.local());
    site.is_local(recipient) && is_srs(local) && srs(local).is_none()
}

/// Whether a local part is of the form that the Sender Rewriting Scheme gives forwarded mail.
pub fn is_srs(local: &str) -> bool {
    let Some((tag, rest)) = local.split_at_checked(4) else { return false };
    let is_tag = tag.eq_ignore_ascii_case("SRS0") || tag.eq_ignore_ascii_case("SRS1");
    is_tag && rest.starts_with(['=', '+', '-'])
}

/// An address of that form without its tags, for counting: `srs=joe@bank.example@fwd.example`. Whose
/// ever it is: nobody is judged by it. `None` where it cannot be read.
pub fn without_tags(address: &Address) -> Option<String> {
    let inner = srs(without_batv(address.local()))?;
    let host = address.domain()?;
    // One step more: behind `SRS1` stands an `SRS0` with tags of its own.
    let inner = srs(inner.local()).unwrap_or(inner);
    Some(format!("srs={}@{host}", inner.canonical()))
}

/// `prvs=TAG=local` → `local` (draft-levine-smtp-batv); anything else as it is.
fn without_batv(local: &str) -> &str {
    match local.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("prvs=") => {
            local.get(5..).and_then(|rest| rest.split_once('=')).map_or(local, |(_, rest)| rest)
        }
        _ => local,
    }
}

/// `SRS0=HASH=TIME=domain=local`, `SRS1=HASH=forwarder==HASH=TIME=domain=local`.
fn srs(local: &str) -> Option<Address> {
    let (tag, rest) = local.split_at_checked(4)?;
    let rest = rest.strip_prefix(['=', '+', '-'])?;
    if tag.eq_ignore_ascii_case("SRS0") {
        let mut parts = rest.splitn(4, '=');
        let (_hash, _time) = (parts.next()?, parts.next()?);
        let (domain, user) = (parts.next()?, parts.next()?);
        return mailbox(user, domain);
    }
    if tag.eq_ignore_ascii_case("SRS1") {
        let mut parts = rest.splitn(3, '=');
        let (_hash, forwarder, inner) = (parts.next()?, parts.next()?, parts.next()?);
        return mailbox(&format!("SRS0{inner}"), forwarder);
    }
    None
}

/// The address of a local part as it is meant, quoted where it has to be (RFC 5321 §4.1.2).
fn mailbox(local: &str, domain: &str) -> Option<Address> {
    let is_plain = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    match local.chars().all(is_plain) {
        true => Address::parse(&format!("{local}@{domain}")),
        false => {
            let escaped = local.replace('\\', "\\\\").replace('"', "\\\"");
            Address::parse(&format!("\"{escaped}\"@{domain}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::address::Domain;

    #[test]
    fn only_our_own_forms_are_decoded_and_only_to_others() {
        let ours = Domain::parse("uni.example").unwrap();
        let site = Site { domains: [ours].into(), ..Site::default() };
        for (recipient, original) in [
            ("SRS0=abcd=XY=bank.example=joe@uni.example", Some("joe@bank.example")),
            ("srs0+abcd=XY=bank.example=joe=x@uni.example", Some("joe=x@bank.example")),
            ("prvs=0123abcdef=SRS0=a=b=bank.example=joe@uni.example", Some("joe@bank.example")),
            (
                "SRS1=ab=fwd.example==cd=XY=bank.example=joe@uni.example",
                Some("SRS0=cd=XY=bank.example=joe@fwd.example"),
            ),
            ("SRS0=abcd=XY=bank.example=joe@other.example", None),
            ("SRS0=abcd=XY=uni.example=joe@uni.example", None),
            ("prvs=0123abcdef=joe@uni.example", None),
            ("\"SRS0=ab=XY=bank.example=a b\"@uni.example", Some("\"a b\"@bank.example")),
            ("\"SRS0=ab=XY=bank.example=@x:a\"@uni.example", Some("\"@x:a\"@bank.example")),
            (
                "\"SRS0=ab=XY=bank.example=\\\"a\\\\\"@uni.example",
                Some("\"\\\"a\\\\\"@bank.example"),
            ),
            (
                "\"SRS1=ab=fwd.example==cd=XY=bank.example=a b\"@uni.example",
                Some("\"SRS0=cd=XY=bank.example=a b\"@fwd.example"),
            ),
            ("SRS0=abcd=XY@uni.example", None),
            ("SRS0=abcd=XY=not a domain=joe@uni.example", None),
            ("joe@uni.example", None),
        ] {
            let Some(address) = Address::parse(recipient) else { continue };
            let found = foreign_original(&address, &site);
            assert_eq!(found.as_ref().map(Address::as_str), original, "{recipient}");
        }
    }

    #[test]
    fn what_has_the_form_and_cannot_be_read_is_known_as_such() {
        let ours = Domain::parse("uni.example").unwrap();
        let site = Site { domains: [ours].into(), ..Site::default() };
        for (recipient, unreadable) in [
            ("SRS0=abcd=XY@uni.example", true),
            ("prvs=0123abcdef=SRS0+a=b=a..example=joe@uni.example", true),
            ("SRS0=abcd=XY=bank.example=@uni.example", true),
            ("SRS0=abcd=XY@other.example", false),
            ("SRS0=abcd=XY=bank.example=joe@uni.example", false),
            ("SRS0=abcd=XY=uni.example=joe@uni.example", false),
            ("srs0bar@uni.example", false),
        ] {
            let address = Address::parse(recipient).unwrap();
            assert_eq!(is_unreadable(&address, &site), unreadable, "{recipient}");
        }
    }
}
