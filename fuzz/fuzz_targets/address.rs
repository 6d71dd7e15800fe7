//! Addresses and domains: what is read keeps its text, and its compared form is stable.
#![no_main]

use libfuzzer_sys::fuzz_target;
use replyguard::mail::address::{Address, Domain};

fuzz_target!(|text: &str| {
    if let Some(domain) = Domain::parse(text) {
        assert_eq!(Domain::parse(domain.as_str()).as_ref(), Some(&domain));
        assert!(domain.as_str().len() <= 253 && domain.is_within(&domain));
        if let Some(parent) = domain.parent() {
            assert!(domain.is_within(&parent) && !parent.is_within(&domain));
            assert_eq!(parent.label_count() + 1, domain.label_count());
        }
    }
    if let Some(address) = Address::parse(text) {
        assert_eq!(address.as_str(), text);
        assert!(address.same_mailbox(&address));
        assert!(!text.chars().any(char::is_control), "{text:?}");
        let quoted = address.local().replace('\\', "\\\\").replace('"', "\\\"");
        if let Some(domain) = address.domain() {
            let again = Address::parse(&format!("\"{quoted}\"@{domain}"));
            // The plain form may be longer than the bound.
            if let Some(again) = again {
                assert!(again.same_mailbox(&address));
            }
        }
    }
});
