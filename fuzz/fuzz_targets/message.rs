//! Messages: any bytes are read and classified, whole or cut; what is found stands inside them; and
//! what a message is does not depend on what ends its lines.
#![no_main]

use libfuzzer_sys::fuzz_target;
use replyguard::judge::fingerprint::FingerprintKey;
use replyguard::judge::site::Site;
use replyguard::judge::{Case, read_alone};
use replyguard::mail::header::Completeness;
use replyguard::mail::limits::{PART_DEPTH_MAX, PARTS_MAX, SIGNALS_MAX, WORDS_BYTES_MAX};
use replyguard::mail::message::{Message, View};

fn read(bytes: &[u8], completeness: Completeness) -> Case {
    let message = Message::new(bytes.to_vec(), completeness);
    read_alone(&message, &Site::default(), &FingerprintKey::new([1; 32]))
}

fn depth(view: &View<'_>, part: usize) -> usize {
    std::iter::successors(Some(part), |part| view.parts()[*part].parent).count()
}

fuzz_target!(|bytes: &[u8]| {
    let view = View::read(bytes);
    assert!((1..=PARTS_MAX).contains(&view.parts().len()));
    for (index, part) in view.parts().iter().enumerate() {
        assert!(bytes.get(part.content.clone()).is_some(), "{:?}", part.content);
        assert!(part.parent.is_none_or(|parent| parent < index));
        assert!(depth(&view, index) <= PART_DEPTH_MAX + 1);
    }
    let case = read(bytes, Completeness::Whole);
    assert!(case.signals.len() <= SIGNALS_MAX);
    if let Some(range) = case.original.embedded {
        assert!(bytes.get(range).is_some());
    }
    read(bytes, Completeness::Truncated);

    // Above this bound a class may hang on a word that CRLF pushes out of what is looked at.
    let lf: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != b'\r').collect();
    let crlf: Vec<u8> = lf
        .iter()
        .flat_map(|byte| match byte {
            b'\n' => b"\r\n".as_slice(),
            byte => std::slice::from_ref(byte),
        })
        .copied()
        .collect();
    if crlf.len() <= WORDS_BYTES_MAX {
        let [lf, crlf] = [lf, crlf].map(|bytes| read(&bytes, Completeness::Whole));
        assert_eq!((lf.class, &lf.signals), (crlf.class, &crlf.signals));
        assert_eq!(lf.original.found_as, crlf.original.found_as);
        assert_eq!(lf.original.keys, crlf.original.keys);
    }
});
