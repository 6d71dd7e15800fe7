//! SPF records: any text is a record or a fault, and its names expand within their bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use replyguard::auth::spf::expand::Values;
use replyguard::auth::spf::record::{Mechanism, SpfRecord, is_spf};

fuzz_target!(|text: &[u8]| {
    let text = [b"v=spf1 ", text].concat();
    assert!(is_spf(&text));
    let Ok(record) = SpfRecord::parse(&text) else { return };
    let values = Values {
        client: "2001:db8::1".parse().unwrap(),
        helo: "mail.example.net",
        local: "a-b+c=d",
        sender_domain: "a.example",
        domain: "b.example",
        validated_name: None,
    };
    let targets = record.directives.iter().filter_map(|directive| match &directive.mechanism {
        Mechanism::Include(target) | Mechanism::Exists(target) => Some(target),
        Mechanism::A(target, _) | Mechanism::Mx(target, _) | Mechanism::Ptr(target) => {
            target.as_ref()
        }
        Mechanism::All | Mechanism::Ip(_) => None,
    });
    for target in targets.chain(&record.redirect) {
        if let Ok(name) = target.expand(&values) {
            assert!(name.len() <= 253);
        }
    }
});
