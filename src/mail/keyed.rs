//! Keyed hashes of lists of words: who writes the mail cannot choose where it falls.
//!
//! BLAKE3 with a key. Each word goes in with its length (64 bits, little-endian), so that no two
//! lists of words hash alike.

/// The first `N` bytes of the hash, at most 32.
///
/// Why the words are joined first: the hash of one short piece costs half of what several cost.
pub fn keyed_hash<const N: usize, W: AsRef<[u8]>>(key: &[u8; 32], words: &[W]) -> [u8; N] {
    let length = |word: &W| word.as_ref().len() + size_of::<u64>();
    let mut joined = Vec::with_capacity(words.iter().map(length).sum());
    words.iter().for_each(|word| put(&mut joined, word.as_ref()));
    first(&blake3::keyed_hash(key, &joined))
}

/// Adds a word with its length.
pub fn put(to: &mut Vec<u8>, word: &[u8]) {
    to.extend_from_slice(&(word.len() as u64).to_le_bytes());
    to.extend_from_slice(word);
}

/// The first `N` bytes of a hash, at most 32.
pub fn first<const N: usize>(hash: &blake3::Hash) -> [u8; N] {
    const { assert!(N <= blake3::OUT_LEN) };
    let mut out = [0; N];
    out.iter_mut().zip(hash.as_bytes()).for_each(|(out, byte)| *out = *byte);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    #[test]
    fn words_are_not_run_together() {
        let hash = |words: &[&str]| keyed_hash::<16, _>(&KEY, words);
        assert_eq!(hash(&["ab", "c"]), hash(&["ab", "c"]));
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
        assert_ne!(hash(&["ab"]), hash(&["ab", ""]));
        assert_ne!(hash(&["ab"]), keyed_hash(&[8; 32], &["ab"]));
    }

    #[test]
    fn it_is_the_beginning_of_the_hash_of_lengths_and_words() {
        let mut hasher = blake3::Hasher::new_keyed(&KEY);
        for word in ["from", "joe@ours.example"] {
            hasher.update(&(word.len() as u64).to_le_bytes());
            hasher.update(word.as_bytes());
        }
        let mut wanted = [0; 16];
        hasher.finalize_xof().fill(&mut wanted);
        assert_eq!(keyed_hash::<16, _>(&KEY, &["from", "joe@ours.example"]), wanted);
    }
}
