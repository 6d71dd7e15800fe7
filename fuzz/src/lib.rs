//! What the fuzz targets of the wire share: the same bytes, cut into packets in two ways.

/// Cuts bytes into packets. The seed says how: 0 is one packet, 1 is a byte a packet, with any
/// other the lengths vary between 1 and the seed.
pub fn packets(seed: u8, wire: &[u8]) -> Vec<&[u8]> {
    let mut lengths = u32::from(seed);
    let mut rest = wire;
    let mut packets = Vec::new();
    while !rest.is_empty() {
        lengths = lengths.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = match seed {
            0 => rest.len(),
            seed => 1 + (lengths >> 16) as usize % usize::from(seed),
        };
        let (packet, after) = rest.split_at(length.min(rest.len()));
        packets.push(packet);
        rest = after;
    }
    packets
}

/// The first byte, which is a seed for `packets`, and the rest: the wire.
pub fn seeded(input: &[u8]) -> (u8, &[u8]) {
    input.split_first().map_or((0, input), |(seed, wire)| (*seed, wire))
}
