//! New inputs from known ones, the same in every run, like libFuzzer without its guidance.

/// Numbers that parsers often get wrong.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 32,
    i64::MAX as u64,
    u64::MAX,
];

/// splitmix64 (Steele, Lea, Flood 2014): small, and sufficient for mutations.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Starts with a different state for each target.
    pub(crate) fn of(name: &str) -> Self {
        let hash = |sum: u64, byte: u8| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(name.bytes().fold(0xcbf2_9ce4_8422_2325, hash))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Returns a number below `limit`; 0 if `limit` is 0.
    fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).expect("usize fits u64").max(1);
        usize::try_from(self.next() % limit).expect("it is below a usize")
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }
}

/// Returns one of `known`, changed one to four times and at most `longest` bytes long.
pub(crate) fn mutate(known: &[Vec<u8>], longest: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = random.pick(known).cloned().unwrap_or_default();
    for _ in 0..=random.below(4) {
        change(&mut bytes, known, random);
    }
    bytes.truncate(longest);
    bytes
}

fn change(bytes: &mut Vec<u8>, known: &[Vec<u8>], random: &mut Random) {
    let at = random.below(bytes.len());
    let span = 1 + random.below(8);
    let end = (at + span).min(bytes.len());
    match random.below(9) {
        0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        1 if !bytes.is_empty() => bytes[at] = random.byte(),
        2 => drop(bytes.drain(at..end)),
        3 => {
            let inserted: Vec<u8> = (0..span).map(|_| random.byte()).collect();
            bytes.splice(at..at, inserted);
        }
        4 => {
            let again = bytes[at..end].repeat(1 + random.below(8));
            bytes.splice(at..at, again);
        }
        5 => bytes.truncate(at),
        6 => edge(bytes, at, random),
        7 => {
            // The head of this input and the tail of another.
            let other = random.pick(known).map_or(&[][..], Vec::as_slice);
            let from = random.below(other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        _ => {
            let printable = b' ' + random.byte() % 95;
            bytes.insert(at, printable);
        }
    }
}

/// Writes a number at the edge of its type, in either byte order.
fn edge(bytes: &mut [u8], at: usize, random: &mut Random) {
    let number = *random.pick(&EDGES).expect("there are some");
    let width = 1 << random.below(4);
    let little = number.to_le_bytes();
    let mut written = little[..width].to_vec();
    if random.below(2) == 0 {
        written.reverse();
    }
    for (to, from) in bytes.iter_mut().skip(at).zip(written) {
        *to = from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_the_same_in_every_run_and_never_too_long() {
        let known = vec![b"some text of a kind".to_vec(), vec![0; 30], Vec::new()];
        let inputs = |name| {
            let mut random = Random::of(name);
            (0..500).map(|_| mutate(&known, 32, &mut random)).collect::<Vec<_>>()
        };
        assert_eq!(inputs("a"), inputs("a"));
        assert_ne!(inputs("a"), inputs("b"));
        assert!(inputs("a").iter().all(|bytes| bytes.len() <= 32));
        let mut different = inputs("a");
        different.sort();
        different.dedup();
        // A third of them begin with the empty input, which has few different mutations.
        assert!(different.len() > 300, "{} different inputs", different.len());
    }
}
